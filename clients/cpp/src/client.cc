#include "transparent_llm/client.h"

#include <algorithm>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "client_impl.h"
#include "method_table.h"
#include "row_length.h"
#include "run_input.h"
#include "slices.h"
#include "tokenized.h"
#include "version.h"
#include "wire_dtype.h"

namespace transparent_llm {

using internal::CallTerms;
using internal::CurrentRun;
using internal::Stub;

const char* const kVersion = TRANSPARENT_LLM_VERSION;

namespace {

/// The axes of tokens and mask.
constexpr std::string_view kPositions[] = {"batch", "pos"};

/// What came for a read, with its method's name where it is one tensor.
Parts named(Parts came, const Read& read) {
  if (auto whole = came.extract(""); !whole.empty()) {
    whole.key() = std::string(read.method());
    came.insert(std::move(whole));
  }
  return came;
}

}  // namespace

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

Client::Impl& Client::impl() const {
  if (!impl_) throw InvalidRequestError("this client was moved from");
  return *impl_;
}

Client Client::connect(const std::string& target, Options options) {
  return connect_all({target}, std::move(options));
}

Client Client::connect_all(const std::vector<std::string>& targets, Options options) {
  return Client(
      std::make_unique<Impl>(std::make_shared<internal::Shared>(targets, std::move(options))));
}

Client Client::copy() const { return Client(std::make_unique<Impl>(impl())); }

void Client::close() { impl().connection().close(); }

ServerInfo Client::server_info(const CallOptions& options) {
  const auto terms = impl().terms(options);
  return internal::server_info_of(
      internal::unary(impl().connection(), &Stub::ServerInfo, v1::ServerInfoRequest(), terms));
}

bool Client::is_serving(const CallOptions& options) {
  return internal::is_serving(impl().connection(), impl().terms(options));
}

ModelInfo Client::model_info(const CallOptions& options) {
  v1::ModelInfoRequest request;
  request.set_model(impl().model());
  const auto response =
      internal::unary(impl().connection(), &Stub::ModelInfo, request, impl().terms(options));
  return internal::model_info_of(response.info());
}

void Client::run(const std::vector<std::string>& sentences, const RunOptions& options) {
  impl().begin(internal::sentences_request(impl().model(), sentences), options);
}

void Client::run_tokens(const std::vector<std::vector<Index>>& token_ids,
                        const RunOptions& options) {
  impl().begin(internal::tokens_request(impl().model(), token_ids), options);
}

std::vector<GenerationStep> Client::generate(const std::vector<std::string>& prompts,
                                             const GenerateOptions& options) {
  return impl().generate(internal::sentences_request(impl().model(), prompts), {}, options);
}

std::vector<GenerationStep> Client::generate_tokens(
    const std::vector<std::vector<Index>>& token_ids, const GenerateOptions& options) {
  return impl().generate(internal::tokens_request(impl().model(), token_ids), {}, options);
}

std::vector<GenerationStep> Client::generate_chat(const std::vector<ChatMessage>& messages,
                                                  const GenerateOptions& options) {
  if (messages.empty()) throw InvalidRequestError("a chat has no message: give at least one");
  std::vector<std::string> contents;  // which lead it where a run of them would be
  for (const ChatMessage& message : messages) contents.push_back(message.content);
  return impl().generate(internal::sentences_request(impl().model(), contents), messages, options);
}

std::vector<EditEffect> Client::effects() const { return impl().current().effects; }

std::shared_ptr<const CurrentRun> Client::current_run() const { return impl().source(); }

void Client::release(const CallOptions& options) {
  const CurrentRun& run = impl().current();
  v1::ReleaseRunRequest request;
  request.set_run_id(run.run_id);
  CallTerms terms = impl().terms(options);
  terms.run_key = run.key;
  internal::unary(impl().connection(), &Stub::ReleaseRun, request, terms);
}

std::string Client::run_id() const { return impl().current().run_id; }

std::size_t Client::batch_size() const { return impl().current().tokens.shape()[0]; }

Tensor Client::tokens(const ReadOptions& options) const {
  const Tensor& tokens = impl().current().tokens;
  internal::require_valid(options);
  internal::require_axes("tokens", kPositions, options);
  return internal::cut(tokens, options);
}

Tensor Client::mask(const ReadOptions& options) const {
  const auto& mask = impl().current().mask;
  internal::require_valid(options);
  internal::require_axes("mask", kPositions, options);
  if (!mask) throw NotSupportedError("the served model does not distinguish padding from tokens");
  return internal::cut(*mask, options);
}

std::vector<std::string> Client::tokens_to_strings(std::span<const Index> tokens,
                                                   const CallOptions& options) {
  internal::require_token_ids(tokens);
  v1::TokensToStringsRequest request;
  request.set_model(impl().model());
  for (const Index token : tokens) request.add_token_ids(static_cast<std::int32_t>(token));
  const auto response =
      internal::unary(impl().connection(), &Stub::TokensToStrings, request, impl().terms(options));
  if (static_cast<std::size_t>(response.strings_size()) != tokens.size()) {
    throw InternalError("the server sent " + std::to_string(response.strings_size()) +
                        " strings for " + std::to_string(tokens.size()) + " tokens");
  }
  return {response.strings().begin(), response.strings().end()};
}

std::vector<std::size_t> Client::last() const {
  const auto& mask = impl().current().mask;
  if (!mask) throw NotSupportedError("the served model does not distinguish padding from tokens");
  std::vector<std::size_t> last;
  for (std::size_t row = 0; row < mask->shape()[0]; ++row)
    last.push_back(std::max<std::size_t>(internal::row_length(*mask, row), 1) - 1);
  return last;
}

std::vector<Index> Client::to_tokens(const std::string& text, std::optional<bool> add_bos,
                                     const CallOptions& options) {
  const auto response = impl().tokenized(text, add_bos, options);
  return {response.token_ids().begin(), response.token_ids().end()};
}

std::vector<std::string> Client::to_str_tokens(const std::string& text,
                                               std::optional<bool> add_bos,
                                               const CallOptions& options) {
  const auto response = impl().tokenized(text, add_bos, options);
  return {response.token_strings().begin(), response.token_strings().end()};
}

Index Client::to_single_token(const std::string& text, const CallOptions& options) {
  return internal::single_token(text, impl().tokenized(text, false, options));
}

std::vector<TokenAt> Client::describe_run(const CallOptions& options) {
  const Tensor all = impl().current().tokens;
  const std::optional<Tensor> mask = impl().current().mask;
  std::vector<TokenAt> listed;
  for (std::size_t row = 0; row < all.shape()[0]; ++row) {
    const std::size_t length = mask ? internal::row_length(*mask, row) : all.shape()[1];
    const auto ids = all.as<Index>().subspan(row * all.shape()[1], length);
    const std::vector<std::string> texts = tokens_to_strings(ids, options);
    for (std::size_t pos = 0; pos < length; ++pos)
      listed.push_back({row, pos, ids[pos], texts[pos]});
  }
  return listed;
}

Tensor Client::logits(const ReadOptions& options) { return read(Read::logits(), options); }

Tensor Client::unembed(const Tensor& t, bool normalize, const ReadOptions& options) {
  internal::require_valid(options);
  const internal::Method& method = internal::method_named("unembed");
  internal::require_axes(method.name, method.dims, options);
  v1::UnembedRequest request;
  request.set_model(impl().model());
  request.set_normalize(normalize);
  request.mutable_t()->set_dtype(internal::to_wire(t.dtype()));
  for (const std::size_t length : t.shape()) request.mutable_t()->add_shape(length);
  request.mutable_t()->set_data(t.bytes().data(), t.bytes().size());
  internal::fill(*request.mutable_options(), method.dims, options, true);
  const auto call = internal::stream_call(method.name, std::move(request));
  const std::size_t rows = t.shape().size() == 2 ? t.shape()[0] : 0;
  const internal::Expected expected({{.method = &method, .options = options, .rows = rows}});
  return internal::receive_one(impl().connection(), call,
                               impl().terms(impl().call_options(options)), expected,
                               options.on_progress);
}

Tensor Client::residual_in(Index layer, const ReadOptions& options) {
  return read(Read::residual_in(layer), options);
}

Tensor Client::residual_after_attn(Index layer, const ReadOptions& options) {
  return read(Read::residual_after_attn(layer), options);
}

Tensor Client::residual_out(Index layer, const ReadOptions& options) {
  return read(Read::residual_out(layer), options);
}

Tensor Client::ffn_out(Index layer, const ReadOptions& options) {
  return read(Read::ffn_out(layer), options);
}

Tensor Client::decomposed_ffn_out(Index batch_i, Index layer, Index pos,
                                  const ReadOptions& options) {
  return read(Read::decomposed_ffn_out(batch_i, layer, pos), options);
}

Tensor Client::neuron_activations(Index batch_i, Index layer, Index pos,
                                  const ReadOptions& options) {
  return read(Read::neuron_activations(batch_i, layer, pos), options);
}

Tensor Client::neuron_output(Index layer, Index neuron, const ReadOptions& options) {
  internal::require_valid(options);
  const internal::Method& method = internal::method_named("neuron_output");
  internal::require_axes(method.name, method.dims, options);
  v1::NeuronOutputRequest request;
  request.set_model(impl().model());
  request.set_layer(internal::to_int32("layer", layer));
  request.set_neuron(internal::to_int32("neuron", neuron));
  internal::fill(*request.mutable_options(), method.dims, options, true);
  const auto call = internal::stream_call(method.name, std::move(request));
  const internal::Expected expected({{.method = &method, .options = options}});
  return internal::receive_one(impl().connection(), call,
                               impl().terms(impl().call_options(options)), expected,
                               options.on_progress);
}

Tensor Client::attention_matrix(Index batch_i, Index layer, Index head,
                                const ReadOptions& options) {
  return read(Read::attention_matrix(batch_i, layer, head), options);
}

Tensor Client::attention_output(Index batch_i, Index layer, Index pos, std::optional<Index> head,
                                const ReadOptions& options) {
  return read(Read::attention_output(batch_i, layer, pos, head), options);
}

Tensor Client::decomposed_attn(Index batch_i, Index layer, const ReadOptions& options) {
  return read(Read::decomposed_attn(batch_i, layer), options);
}

Tensor Client::read(const Read& wanted, const ReadOptions& options) {
  internal::require_one_tensor(internal::method_named(wanted.method()), "read");
  Parts came = impl().of_run(options, [&](const CurrentRun& run, const CallTerms& terms) {
    return internal::read(impl().shared(), run, wanted, options, terms);
  });
  return std::move(came.at(""));
}

Parts Client::read_parts(const Read& wanted, const ReadOptions& options) {
  Parts came = impl().of_run(options, [&](const CurrentRun& run, const CallTerms& terms) {
    return internal::read(impl().shared(), run, wanted, options, terms);
  });
  return named(std::move(came), wanted);
}

std::vector<Tensor> Client::fetch(const std::vector<Read>& reads, const ReadOptions& options) {
  for (const Read& one : reads)
    internal::require_one_tensor(internal::method_named(one.method()), "fetch");
  std::vector<Tensor> values;
  for (Parts& came : impl().fetched(reads, options)) values.push_back(std::move(came.at("")));
  return values;
}

std::vector<Parts> Client::fetch_parts(const std::vector<Read>& reads, const ReadOptions& options) {
  std::vector<Parts> values = impl().fetched(reads, options);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = named(std::move(values[i]), reads[i]);
  return values;
}

std::vector<PlannedRead> Client::plan(const std::vector<Read>& reads, const ReadOptions& options) {
  return impl().of_run(options, [&](const CurrentRun& run, const CallTerms& terms) {
    return reads.empty() ? std::vector<PlannedRead>()
                         : internal::planned(impl().shared(), run, reads, options, terms);
  });
}

void Client::read_chunks(const Read& wanted, const ChunkSink& sink, const ReadOptions& options) {
  std::exception_ptr thrown;  // by the sink: it is nobody else's, whatever it is
  const ChunkSink watched = [&](const TensorHeader& header, std::uint64_t offset,
                                std::span<const std::byte> bytes) {
    try {
      sink(header, offset, bytes);
    } catch (...) {
      thrown = std::current_exception();
      throw;
    }
  };
  impl().of_run(options, [&](const CurrentRun& run, const CallTerms& terms) {
    try {
      internal::read_chunks(impl().shared(), run, wanted, watched, options, terms);
    } catch (...) {
      if (!thrown) throw;
    }
  });
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace transparent_llm
