#include "reading.h"

#include <algorithm>
#include <utility>

#include "factors.h"
#include "method_table.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

constexpr const char* kWhole = "";

[[noreturn]] void raise_unasked(const std::string& got, const std::string& wanted) {
  throw InternalError("the server sent " + got + " where " + wanted + " was asked for");
}

std::optional<ModelDescription> described(Shared& shared, const CurrentRun& run,
                                          const CallTerms& terms) {
  return shared.descriptions.with_neuron_outputs(shared.connection, run.model_digest, terms);
}

/// Whether neurons' contributions are best multiplied here, by weights that are or will be kept.
bool multiplies(Shared& shared, const CurrentRun& run, const Read& read, const CallTerms& terms) {
  const auto model = described(shared, run, terms);
  return model && shared.weights.keeps(*model, read.indices()[1].value_or(-1));
}

Asked asked_for(Shared& shared, const CurrentRun& run, const Read& read, const ReadOptions& options,
                const CallTerms& terms) {
  const bool is_whole = options.slices.empty() && !options.dtype;
  const Method& method = method_named(read.method());
  const bool has_factors = is_whole && !method.parts.empty();
  return {read,
          has_factors && (method.weights.empty() || multiplies(shared, run, read, terms))};
}

Tensor take(Parts& parts, const std::string& name, const Read& read) {
  auto found = parts.extract(name);
  if (!found) raise_unasked("not all factors", std::string(read.method()));
  return std::move(found.mapped());
}

std::optional<Tensor> take_if_there(Parts& parts, const std::string& name) {
  auto found = parts.extract(name);
  return found ? std::optional(std::move(found.mapped())) : std::nullopt;
}

Tensor multiplied(Shared& shared, const CurrentRun& run, const Read& read, Parts parts,
                  const CallTerms& terms) {
  const auto max_bytes = shared.connection.max_bytes();
  const auto go_on = [&] { require_time(shared.connection, terms); };
  const Method& method = method_named(read.method());
  Tensor first = take(parts, method.parts.front().name, read);
  std::optional<Tensor> gain = take_if_there(parts, "gain");
  if (method.weights.empty()) {
    Tensor value_out = take(parts, "value_out", read);
    if (!parts.empty())
      raise_unasked("a factor " + parts.begin()->first, std::string(read.method()));
    return product(AttnFactors{std::move(first), std::move(value_out), std::move(gain)}, max_bytes,
                   go_on);
  }
  std::optional<Tensor> spans = take_if_there(parts, "spans");
  if (!parts.empty()) raise_unasked("a factor " + parts.begin()->first, std::string(read.method()));
  const auto model = described(shared, run, terms);
  if (!model) raise_unasked("factors", "the value of a model without them");
  const std::int32_t layer = to_int32("layer", read.indices()[1].value_or(-1));
  const Tensor weights = shared.weights.layer(shared.connection, *model, layer, terms);
  return product(FfnFactors{std::move(first), std::move(gain), std::move(spans)}, weights,
                 max_bytes, go_on);
}

Tensor value_of(Shared& shared, const CurrentRun& run, const Asked& asked, Parts parts,
                const CallTerms& terms) {
  if (auto whole = take_if_there(parts, kWhole)) return *std::move(whole);
  if (!asked.factored) raise_unasked("factors", "the value of " + std::string(asked.read.method()));
  return multiplied(shared, run, asked.read, std::move(parts), terms);
}

Expectation expectation_of(Shared& shared, const CurrentRun& run, const Asked& asked,
                           const ReadOptions& options) {
  Expectation made{.method = std::string(asked.read.method()),
                   .options = options,
                   .factored = asked.factored};
  add_lengths(made.lengths, run);
  shared.descriptions.add_known(made.lengths, run.model_digest);
  return made;
}

std::vector<NamedTensor> collected(Connection& connection, const StreamCall& call,
                                   const CallTerms& terms, const Expected& expected,
                                   const Progress& progress) {
  Collector collector(expected.most());
  receive(connection, call, terms, expected, collector, connection.max_bytes(), progress);
  return std::move(collector).tensors();
}

}  // namespace

Tensor receive_one(Connection& connection, const StreamCall& call, const CallTerms& terms,
                   const Expected& expected, const Progress& progress) {
  return std::move(collected(connection, call, terms, expected, progress)[0].tensor);
}

std::vector<Parts> grouped(std::span<const Asked> asked, std::vector<NamedTensor> arrived) {
  std::vector<Parts> groups;
  for (NamedTensor& one : arrived) {
    const std::size_t dot = one.name.find('.');
    const std::string method = one.name.substr(0, dot);
    const std::string factor = dot == std::string::npos ? kWhole : one.name.substr(dot + 1);
    const Method* row = find_method(method);
    if (factor == kWhole || (row != nullptr && row->begins_with(factor))) groups.emplace_back();
    if (groups.empty() || groups.size() > asked.size())
      raise_unasked(one.name, std::to_string(asked.size()) + " values");
    const std::string_view wanted = asked[groups.size() - 1].read.method();
    if (method != wanted) raise_unasked(one.name, std::string(wanted));
    if (!groups.back().emplace(factor, std::move(one.tensor)).second)
      raise_unasked(one.name + " twice", "it");
  }
  if (groups.size() != asked.size()) {
    raise_unasked(std::to_string(groups.size()) + " values", std::to_string(asked.size()));
  }
  return groups;
}

Tensor read(Shared& shared, const CurrentRun& run, const Read& read, const ReadOptions& options,
            const CallTerms& terms) {
  const Asked asked = asked_for(shared, run, read, options, terms);
  const StreamCall call = call_of(run.run_id, asked, options);
  const Expected expected({expectation_of(shared, run, asked, options)});
  auto groups = grouped(std::span(&asked, 1), collected(shared.connection, call, terms, expected,
                                                        options.on_progress));
  return value_of(shared, run, asked, std::move(groups[0]), terms);
}

std::vector<Tensor> read_many(Shared& shared, const CurrentRun& run, std::span<const Read> reads,
                              const ReadOptions& options, const CallTerms& terms) {
  std::vector<Asked> asked;
  for (const Read& read : reads) asked.push_back(asked_for(shared, run, read, options, terms));
  if (asked.empty()) return {};
  std::vector<Expectation> expectations;
  for (const Asked& one : asked)
    expectations.push_back(expectation_of(shared, run, one, options));
  const StreamCall call = fetch_call(run.run_id, asked, options);
  auto groups =
      grouped(asked, collected(shared.connection, call, terms, Expected(expectations),
                               options.on_progress));
  std::vector<Tensor> values;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    values.push_back(value_of(shared, run, asked[i], std::move(groups[i]), terms));
  }
  return values;
}

void read_chunks(Shared& shared, const CurrentRun& run, const Read& read, const ChunkSink& sink,
                 const ReadOptions& options, const CallTerms& terms) {
  const Asked asked{read, false};
  const Expected expected({expectation_of(shared, run, asked, options)});
  Forwarder forwarder(sink);
  receive(shared.connection, call_of(run.run_id, asked, options), terms, expected, forwarder,
          std::nullopt, options.on_progress);
  forwarder.finish();
}

}  // namespace transparent_llm::internal
