#include <algorithm>
#include <utility>

#include "method_table.h"
#include "reading.h"
#include "slices.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

/// As long as axes of the model are; without those that are not known.
Lengths lengths_of(Shared& shared, const CurrentRun& run, const CallTerms& terms) {
  Lengths lengths{{"batch", run.tokens.shape()[0]}};
  try {
    shared.descriptions.with_neuron_outputs(shared.connection, run.model_digest, terms);
  } catch (const NotSupportedError&) {  // an old server does not say
  }
  shared.descriptions.add_known(lengths, run.model_digest);
  return lengths;
}

/// A read whose indices count from the beginning of their axes, where their lengths are known.
Read counted_from_start(Shared& shared, const CurrentRun& run, const Read& read,
                        const CallTerms& terms) {
  const Method& method = method_named(read.method());
  std::vector<std::optional<Index>> indices = read.indices();
  const bool is_counted = std::none_of(indices.begin(), indices.end(), [](const auto& index) {
    return index && *index < 0;
  });
  if (is_counted) return read;
  const Lengths lengths = lengths_of(shared, run, terms);
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const std::string axis = method.arguments[i] == "batch_i" ? "batch" : method.arguments[i];
    const auto known = lengths.find(axis);
    if (indices[i] && *indices[i] < 0 && known != lengths.end())
      *indices[i] += static_cast<Index>(known->second);
  }
  return Read::named(read.method(), std::move(indices), read.parameters());
}

/// The same without those that are kept.
std::vector<Parts> read_kept(Shared& shared, const CurrentRun& run, std::span<const Read> reads,
                             const ReadOptions& options, const CallTerms& terms, bool by_fetch) {
  if (!shared.kept.keeps()) return read_of(shared, run, reads, options, terms, by_fetch);
  shared.connection.require_open(terms);
  require_time(shared.connection, terms);
  std::vector<std::optional<Parts>> values;
  std::vector<Read> missing;
  std::vector<std::string> words;
  for (const Read& read : reads) {
    const Method& method = method_named(read.method());
    require_axes(method.name, method.axes(), options);
    words.push_back(words_of(counted_from_start(shared, run, read, terms), options));
    values.push_back(shared.kept.find(run, words.back()));
    if (!values.back()) missing.push_back(read);
  }
  auto came = missing.empty() ? std::vector<Parts>()
                              : read_of(shared, run, missing, options, terms, by_fetch);
  std::vector<Parts> all;
  for (std::size_t i = 0, next = 0; i < values.size(); ++i) {
    const bool is_new = !values[i].has_value();
    all.push_back(is_new ? std::move(came[next++]) : *std::move(values[i]));
    if (is_new) shared.kept.keep(run, words[i], all.back());
  }
  return all;
}

}  // namespace

Parts read(Shared& shared, const CurrentRun& run, const Read& read, const ReadOptions& options,
           const CallTerms& terms) {
  return std::move(read_kept(shared, run, std::span(&read, 1), options, terms, false)[0]);
}

std::vector<Parts> read_many(Shared& shared, const CurrentRun& run, std::span<const Read> reads,
                             const ReadOptions& options, const CallTerms& terms) {
  if (reads.empty()) return {};
  return read_kept(shared, run, reads, options, terms, true);
}

}  // namespace transparent_llm::internal
