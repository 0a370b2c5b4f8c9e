#include "transparent_llm/dtype.h"

#include <array>

namespace transparent_llm {
namespace {

struct Row {
  Dtype dtype;
  std::string_view name;
  std::size_t size;
  bool floating;
};

constexpr std::array kRows = {
    Row{Dtype::kBool, "BOOL", 1, false}, Row{Dtype::kU8, "U8", 1, false},
    Row{Dtype::kI8, "I8", 1, false},     Row{Dtype::kI16, "I16", 2, false},
    Row{Dtype::kI32, "I32", 4, false},   Row{Dtype::kI64, "I64", 8, false},
    Row{Dtype::kF16, "F16", 2, true},    Row{Dtype::kBF16, "BF16", 2, true},
    Row{Dtype::kF32, "F32", 4, true},    Row{Dtype::kF64, "F64", 8, true},
};

const Row& row(Dtype dtype) { return kRows.at(static_cast<std::size_t>(dtype)); }

}  // namespace

std::size_t size_of(Dtype dtype) { return row(dtype).size; }

std::string_view name_of(Dtype dtype) { return row(dtype).name; }

bool is_floating(Dtype dtype) { return row(dtype).floating; }

std::optional<Dtype> dtype_named(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

}  // namespace transparent_llm
