#include "reading.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "factors.h"
#include "method_table.h"
#include "slices.h"
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
  require_axes(method.name, method.axes(), options);
  const bool has_factors = is_whole && !method.parts.empty() && !method.is_parts();
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

Parts value_of(Shared& shared, const CurrentRun& run, const Asked& asked, Parts parts,
               const CallTerms& terms) {
  if (parts.contains(kWhole) || method_named(asked.read.method()).is_parts()) return parts;
  if (!asked.factored) raise_unasked("factors", "the value of " + std::string(asked.read.method()));
  return {{kWhole, multiplied(shared, run, asked.read, std::move(parts), terms)}};
}

Expectation expectation_of(Shared& shared, const CurrentRun& run, const Asked& asked,
                           const ReadOptions& options) {
  Expectation made{.method = &method_named(asked.read.method()),
                   .options = options,
                   .factored = asked.factored};
  add_lengths(made.lengths, run);
  shared.descriptions.add_known(made.lengths, run.model_digest);
  add_sizes(made, asked.read);
  return made;
}

template <class Value>
void require_whole(const Method& method, const std::map<std::string, Value>& came) {
  if (came.contains(kWhole)) return;
  for (const Part& part : method.parts)
    if (!part.is_optional && !came.contains(part.name))
      raise_unasked(method.name + " without its part " + part.name, "all of it");
}

/// Tensors, or their headers, value by value.
template <class Value>
std::vector<std::map<std::string, Value>> in_groups(
    std::span<const Method* const> wanted, std::vector<std::pair<std::string, Value>> arrived) {
  std::vector<std::map<std::string, Value>> groups;
  std::optional<std::size_t> place;  // of the last tensor, among the parts of its value
  for (auto& [name, value] : arrived) {
    const std::size_t dot = name.find('.');
    const std::string method = name.substr(0, dot);
    const std::string part = dot == std::string::npos ? kWhole : name.substr(dot + 1);
    const Method* under_way = place ? wanted[groups.size() - 1] : nullptr;
    if (under_way != nullptr && under_way->name == method && under_way->place_of(part) > place) {
      place = under_way->place_of(part);
    } else {
      if (groups.size() == wanted.size())
        raise_unasked(name, std::to_string(wanted.size()) + " values");
      const Method& next = *wanted[groups.size()];
      place = dot == std::string::npos ? std::nullopt : next.place_of(part);
      const bool is_begun = place ? *place == 0 : dot == std::string::npos && !next.is_parts();
      if (next.name != method || !is_begun) raise_unasked(name, next.name);
      groups.emplace_back();
    }
    groups.back().emplace(part, std::move(value));
  }
  if (groups.size() != wanted.size()) {
    raise_unasked(std::to_string(groups.size()) + " values", std::to_string(wanted.size()));
  }
  for (std::size_t i = 0; i < groups.size(); ++i) require_whole(*wanted[i], groups[i]);
  return groups;
}

using Headers = std::map<std::string, TensorHeader>;

/// The headers of a plan, by their names. Throws InternalError for what was not asked for.
std::vector<std::pair<std::string, TensorHeader>> checked_headers(const v1::PlanResponse& response,
                                                                  const ExpectedTensors& expected) {
  std::vector<std::pair<std::string, TensorHeader>> headers;
  if (static_cast<std::size_t>(response.tensors_size()) > expected.most())
    raise_unasked(std::to_string(response.tensors_size()) + " headers",
                  std::to_string(expected.most()) + " at most");
  for (const v1::TensorHeader& wire : response.tensors()) {
    try {
      TensorHeader header = checked(wire);
      expected.check(header);
      headers.emplace_back(header.name, std::move(header));
    } catch (const StreamError& error) {
      throw InternalError(std::string("the server broke the protocol in plan: ") + error.what());
    }
  }
  return headers;
}

std::uint64_t bytes_of_all(const Headers& headers) {
  std::uint64_t sum = 0;
  for (const auto& [name, header] : headers) {
    if (header.total_bytes > std::numeric_limits<std::uint64_t>::max() - sum)
      raise_unasked("more bytes than can be counted", "a plan");
    sum += header.total_bytes;
  }
  return sum;
}

PlannedRead planned_of(std::string name, const TensorHeader& header, std::uint64_t n_bytes) {
  return {.name = std::move(name),
          .shape = header.shape,
          .dims = header.dims,
          .dtype = header.dtype,
          .n_bytes = n_bytes,
          .transfer_bytes = n_bytes};
}

PlannedRead planned_of(const Method& method, const Headers& headers, std::uint64_t n_bytes) {
  if (headers.contains(kWhole)) return planned_of(method.name, headers.at(kWhole), n_bytes);
  if (!method.is_parts()) raise_unasked("factors", "the value of " + method.name);
  PlannedRead made = planned_of(method.name, headers.at(method.parts.front().name), n_bytes);
  for (const Part& part : method.parts) {
    const auto found = headers.find(part.name);
    if (found == headers.end()) continue;
    const TensorHeader& header = found->second;
    made.parts.push_back(planned_of(header.name, header, header.total_bytes));
  }
  return made;
}

}  // namespace

std::vector<NamedTensor> collected(Connection& connection, const StreamCall& call,
                                   const CallTerms& terms, const ExpectedTensors& expected,
                                   const Progress& progress) {
  Collector collector(expected.most());
  receive(connection, call, terms, expected, collector, connection.max_bytes(), progress);
  return std::move(collector).tensors();
}

Tensor receive_one(Connection& connection, const StreamCall& call, const CallTerms& terms,
                   const ExpectedTensors& expected, const Progress& progress) {
  return std::move(collected(connection, call, terms, expected, progress)[0].tensor);
}

std::vector<Parts> grouped(std::span<const Method* const> wanted,
                           std::vector<NamedTensor> arrived) {
  std::vector<std::pair<std::string, Tensor>> named;
  for (NamedTensor& one : arrived) named.emplace_back(one.name, std::move(one.tensor));
  return in_groups(wanted, std::move(named));
}

std::vector<Parts> read_of(Shared& shared, const CurrentRun& run, std::span<const Read> reads,
                           const ReadOptions& options, const CallTerms& terms, bool by_fetch) {
  std::vector<Asked> asked;
  std::vector<Expectation> expectations;
  std::vector<const Method*> wanted;
  for (const Read& read : reads) asked.push_back(asked_for(shared, run, read, options, terms));
  for (const Asked& one : asked) {
    expectations.push_back(expectation_of(shared, run, one, options));
    wanted.push_back(expectations.back().method);
  }
  const StreamCall call = by_fetch ? fetch_call(run.run_id, asked, options)
                                   : call_of(run.run_id, asked[0], options);
  auto values = grouped(wanted, collected(shared.connection, call, terms, Expected(expectations),
                                          options.on_progress));
  for (std::size_t i = 0; i < values.size(); ++i) require_own_sizes(expectations[i], values[i]);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = value_of(shared, run, asked[i], std::move(values[i]), terms);
  return values;
}

void require_one_tensor(const Method& method, std::string_view taker) {
  if (!method.is_parts()) return;
  std::string names;
  for (const Part& part : method.parts) names += (names.empty() ? "" : ", ") + part.name;
  throw InvalidRequestError(std::string(taker) + " takes reads of one tensor, and " + method.name +
                            " is several: " + names + "; fetch_parts reads them");
}

void read_chunks(Shared& shared, const CurrentRun& run, const Read& read, const ChunkSink& sink,
                 const ReadOptions& options, const CallTerms& terms) {
  const Asked asked{read, false};
  const Method& method = method_named(read.method());
  require_one_tensor(method, "read_chunks");
  require_axes(method.name, method.axes(), options);
  const Expected expected({expectation_of(shared, run, asked, options)});
  Forwarder forwarder(sink);
  receive(shared.connection, call_of(run.run_id, asked, options), terms, expected, forwarder,
          std::nullopt, options.on_progress);
  forwarder.finish();
}

std::vector<PlannedRead> planned(Shared& shared, const CurrentRun& run,
                                 std::span<const Read> reads, const ReadOptions& options,
                                 const CallTerms& terms) {
  std::vector<Asked> asked;  // first the values, then what would be sent for them
  for (const Read& read : reads) asked.push_back({read, false});
  for (const Read& read : reads) asked.push_back(asked_for(shared, run, read, options, terms));
  std::vector<Expectation> expectations;
  std::vector<const Method*> wanted;
  for (const Asked& one : asked) {
    expectations.push_back(expectation_of(shared, run, one, options));
    wanted.push_back(expectations.back().method);
  }
  const auto response = unary(shared.connection, &Stub::Plan, plan_request(run.run_id, asked, options), terms);
  auto groups = in_groups(wanted, checked_headers(response, Expected(expectations)));
  std::vector<PlannedRead> plans;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    require_own_sizes(expectations[i], groups[i]);
    const std::uint64_t n_bytes = bytes_of_all(groups[i]);
    if (i >= reads.size())
      plans[i - reads.size()].transfer_bytes = n_bytes;
    else
      plans.push_back(planned_of(*wanted[i], groups[i], n_bytes));
  }
  return plans;
}

}  // namespace transparent_llm::internal
