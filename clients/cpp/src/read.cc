#include "transparent_llm/read.h"

#include <string>

#include "method_table.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {

Read Read::named(std::string_view method, std::vector<std::optional<Index>> indices) {
  const internal::Method* row = internal::find_method(method);
  if (row == nullptr || !row->of_run) {
    std::string known;
    for (const internal::Method& one : internal::methods())
      if (one.of_run) known += (known.empty() ? "" : ", ") + one.name;
    throw InvalidRequestError("there is no '" + std::string(method) +
                              "' to read of a run; known are " + known);
  }
  if (indices.size() < row->least_arguments || indices.size() > row->arguments.size()) {
    throw InvalidRequestError(row->name + " takes " + std::to_string(row->arguments.size()) +
                              " arguments, got " + std::to_string(indices.size()));
  }
  indices.resize(row->arguments.size());
  return Read(row->name, std::move(indices));
}

}  // namespace transparent_llm
