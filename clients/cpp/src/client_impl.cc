#include "client_impl.h"

#include <algorithm>
#include <utility>

#include "generating.h"
#include "run_input.h"
#include "tokenized.h"

namespace transparent_llm {

using internal::CallTerms;
using internal::CurrentRun;
using internal::Deadline;
using internal::Stub;

CallTerms Client::Impl::terms(const CallOptions& options) const {
  return {Deadline::after(options.timeout.value_or(shared_->connection.options().timeout)),
          options.stop_token};
}

const CurrentRun& Client::Impl::current() const {
  if (!run_) throw NotRunError("nothing has been run yet: call run({sentence, ...}) first");
  return *run_;
}

std::shared_ptr<const CurrentRun> Client::Impl::source() const {
  if (!run_) throw NotRunError("the source of an edit has run nothing yet: call its run() first");
  return run_;
}

void Client::Impl::require_offered(const char* feature, const std::string& what,
                                   const CallTerms& terms) {
  if (shared_->descriptions.offers(connection(), feature, terms)) return;
  throw NotSupportedError("this server knows no " + what + "; its version is too old");
}

void Client::Impl::begin(v1::RunRequest request, const RunOptions& options) {
  CallTerms of_call = terms({options.timeout, options.stop_token});
  internal::Sources sources = internal::add_edits(*request.mutable_edits(), options.edits);
  if (!options.edits.empty()) require_offered("edits", "edits", of_call);
  of_call.run_key = internal::run_key(request);
  run_ = made(std::move(request), std::move(sources), of_call);
  shared_->kept.forget_unowned();
}

std::vector<GenerationStep> Client::Impl::generate(v1::RunRequest input,
                                                   const std::vector<ChatMessage>& messages,
                                                   const GenerateOptions& options) {
  CallTerms of_call = terms({options.timeout, options.stop_token});
  internal::Generation generation(input, messages, options);
  internal::Sources sources = internal::add_edits(*input.mutable_edits(), options.edits);
  require_offered("generate", "generations", of_call);
  if (!options.edits.empty()) require_offered("edits", "edits", of_call);
  of_call.run_key = internal::run_key(input);
  const internal::MessageCall call{
      .name = "generate",
      .request = [&] { return generation.request(); },
      .take = [&](grpc::ByteBuffer& message) { generation.take(message); },
      .finish = [&] { generation.require_run(); }};
  bringing(sources, of_call, [&] { internal::receive_messages(connection(), call, of_call); });
  *input.mutable_tokens() = generation.rows();
  run_ = made(std::move(input), std::move(sources), of_call);
  shared_->kept.forget_unowned();
  return std::move(generation).steps();
}

v1::TokenizeResponse Client::Impl::tokenized(const std::string& text, std::optional<bool> add_bos,
                                             const CallOptions& options) {
  return internal::tokenized(connection(), digest(), text, add_bos, terms(options));
}

std::vector<Parts> Client::Impl::fetched(const std::vector<Read>& reads,
                                         const ReadOptions& options) {
  return of_run(options, [&](const CurrentRun& run, const CallTerms& terms) {
    return internal::read_many(shared(), run, reads, options, terms);
  });
}

std::shared_ptr<const CurrentRun> Client::Impl::made(v1::RunRequest request,
                                                     internal::Sources sources,
                                                     const CallTerms& terms) {
  const auto response = bringing(sources, terms, [&] {
    return internal::unary(connection(), &Stub::Run, request, terms);
  });
  return std::make_shared<const CurrentRun>(internal::current_run(
      std::move(request), terms.run_key, response, std::move(sources)));
}

/// The source that something failed for want of; none if it failed for another reason.
std::shared_ptr<const CurrentRun> Client::Impl::source_lost(
    const NotFoundError& error, const internal::Sources& sources) const {
  const auto missing = error.metadata().find("run_id");
  const bool was_lost = error.reason() == "RUN_NOT_FOUND" && missing != error.metadata().end();
  if (!was_lost || !shared_->connection.options().rerun) return nullptr;
  const auto found = std::find_if(sources.begin(), sources.end(), [&](const auto& source) {
    return source->run_id == missing->second;
  });
  return found == sources.end() ? nullptr : *found;
}

void Client::Impl::run_again(const CurrentRun& lost, const CallTerms& terms) {
  auto again = made(lost.request, lost.sources, terms);
  if (again->model_digest != lost.model_digest) {
    throw NotFoundError(connection().target() +
                            " lost the run and now serves another model under this name; call "
                            "run() again if that is what you want",
                        {.reason = "MODEL_CHANGED",
                         .metadata = {{"was", lost.model_digest}, {"is", again->model_digest}},
                         .retry_after = {}});
  }
  run_ = std::move(again);
  shared_->kept.forget_unowned();
}

}  // namespace transparent_llm
