// What is decoded of a server, with what no server sends: for libFuzzer.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "assembler.h"
#include "current_run.h"
#include "descriptions.h"
#include "expected.h"
#include "factors.h"
#include "failure.h"
#include "methods.h"
#include "reading.h"
#include "run_input.h"
#include "sinks.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

constexpr std::uint64_t kMostBytes = 1 << 16;

void require(bool holds) {
  if (!holds) std::abort();
}

/// The input, piece by piece; zeros after its end.
class Source {
 public:
  explicit Source(std::span<const std::uint8_t> left) : left_(left) {}

  bool is_empty() const { return left_.empty(); }
  std::uint8_t next() {
    if (left_.empty()) return 0;
    const std::uint8_t first = left_.front();
    left_ = left_.subspan(1);
    return first;
  }
  /// Bytes of a length in two bytes.
  std::string piece() {
    const std::size_t length = next() + 256u * next();
    const auto taken = left_.first(std::min(length, left_.size()));
    left_ = left_.subspan(taken.size());
    return {taken.begin(), taken.end()};
  }
  std::string rest() const { return {left_.begin(), left_.end()}; }

 private:
  std::span<const std::uint8_t> left_;
};

/// A run of two rows of three positions.
CurrentRun a_run() {
  const std::vector<std::int64_t> tokens(6);
  return {.request = {},
          .key = {},
          .run_id = "run",
          .model_digest = std::string(64, '0'),
          .tokens = Tensor(Dtype::kI64, {2, 3}, {"batch", "pos"}, std::as_bytes(std::span(tokens))),
          .mask = {}};
}

const std::vector<Asked>& all_reads() {
  static const std::vector<Asked> kReads = {
      {Read::logits(), false},
      {Read::tokens(), false},
      {Read::residual_in(0), false},
      {Read::attention_matrix(0, 0, 0), false},
      {Read::decomposed_attn(0, 0), true},
      {Read::decomposed_ffn_out(0, 0, 0), true},
  };
  return kReads;
}

const Expected& expected() {
  static const Expected kExpected = [] {
    std::vector<Expectation> expectations;
    for (const Asked& asked : all_reads()) {
      Expectation made{.method = &method_named(asked.read.method()),
                       .factored = asked.factored};
      add_lengths(made.lengths, a_run());
      expectations.push_back(std::move(made));
    }
    return Expected(expectations);
  }();
  return kExpected;
}

/// Messages of a stream; one of no length is an interruption.
void take_stream(Source source) {
  Collector collector(4);
  const bool is_checked = (source.next() & 1) != 0;
  Assembler assembler(
      collector, kMostBytes,
      [=](const TensorHeader& header) {
        if (is_checked) expected().check(header);
      },
      [](const TensorHeader& before, const TensorHeader& header) {
        return expected().continues(before, header);
      });
  while (!source.is_empty()) {
    const std::string message = source.piece();
    v1::TensorChunk chunk;
    if (message.empty()) {
      assembler.resume();
    } else if (chunk.ParseFromString(message)) {
      assembler.add(chunk);
    }
    require(assembler.received() <= assembler.total_bytes());
  }
  assembler.finish();
  std::vector<const Method*> wanted;
  for (const Asked& asked : all_reads()) wanted.push_back(&method_named(asked.read.method()));
  grouped(wanted, std::move(collector).tensors());
}

void take_status(Source source) {
  const auto code = static_cast<grpc::StatusCode>(source.next() % 20);
  const std::string message = source.piece();
  const Failure failure = failure_of({code, message, source.rest()}, "target");
  std::string words = failure.message + failure.details.reason;
  for (const auto& [key, value] : failure.details.metadata) words += key + value;
  require(std::none_of(words.begin(), words.end(), [](char sign) {
    const auto byte = static_cast<unsigned char>(sign);
    return (byte < 0x20 && sign != '\n' && sign != '\t') || byte == 0x7f;
  }));
  if (const auto delay = failure.details.retry_after)
    require(*delay >= Seconds(0) && *delay <= Seconds(24 * 3600));
  if (code != grpc::OK) failure.raise();
}

void take_run(Source source) {
  v1::RunResponse response;
  if (!response.ParseFromString(source.rest())) return;
  const CurrentRun run = current_run(sentences_request("", {"one", "two"}), "key", response);
  require(run.tokens.shape()[0] == 2 && run.tokens.size() == 2 * run.tokens.shape()[1]);
  require(run.model_digest.size() == 64);
}

void take_server_info(Source source) {
  v1::ServerInfoResponse response;
  if (response.ParseFromString(source.rest())) server_info_of(response);
}

/// Up to four axes of up to six elements; I64 have small numbers.
Tensor tensor_of(Source& source) {
  const auto dtype = static_cast<Dtype>(source.next() % 10);
  std::vector<std::size_t> shape(source.next() % 5);
  std::size_t n_bytes = size_of(dtype);
  for (std::size_t& length : shape) n_bytes *= length = source.next() % 7;
  std::vector<std::uint8_t> data(n_bytes);
  for (std::size_t i = 0; i < n_bytes; i += size_of(dtype)) data[i] = source.next();
  return Tensor(dtype, std::move(shape), {}, std::as_bytes(std::span(data)));
}

void take_factors(Source source) {
  const Tensor first = tensor_of(source), second = tensor_of(source);
  std::optional<Tensor> gain, spans;
  if ((source.next() & 1) != 0) gain = tensor_of(source);
  if ((source.next() & 1) != 0) spans = tensor_of(source);
  if ((source.next() & 1) != 0) {
    require(product(AttnFactors{first, second, gain}, kMostBytes).size() <= kMostBytes);
  } else if (is_floating(second.dtype())) {  // as output vectors are, by their header
    require(product(FfnFactors{first, gain, spans}, second, kMostBytes).size() <= kMostBytes);
  }
}

}  // namespace
}  // namespace transparent_llm::internal

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace transparent_llm::internal;
  Source source(std::span(data, size));
  try {
    switch (source.next() % 5) {
      case 0:
        take_stream(source);
        break;
      case 1:
        take_status(source);
        break;
      case 2:
        take_run(source);
        break;
      case 3:
        take_server_info(source);
        break;
      default:
        take_factors(source);
    }
  } catch (const transparent_llm::Error&) {  // what is thrown on purpose
  } catch (const StreamError&) {
  }
  return 0;
}
