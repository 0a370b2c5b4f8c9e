// What stands behind a Client: its connection, its current run, and how a lost run is made again.

#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "edit_parts.h"
#include "reading.h"
#include "slices.h"
#include "transparent_llm/client.h"

namespace transparent_llm {

class Client::Impl {
 public:
  using CallTerms = internal::CallTerms;
  using CurrentRun = internal::CurrentRun;

  explicit Impl(std::shared_ptr<internal::Shared> shared) : shared_(std::move(shared)) {}

  internal::Shared& shared() { return *shared_; }
  internal::Connection& connection() { return shared_->connection; }
  const std::string& model() const { return shared_->connection.options().model; }
  /// Of the model of the current run; empty before any.
  std::string digest() const { return run_ ? run_->model_digest : ""; }
  CallOptions call_options(const ReadOptions& options) const {
    return {options.timeout, options.stop_token};
  }
  CallTerms terms(const CallOptions& options) const;

  /// Throws NotRunError if nothing has been run yet.
  const CurrentRun& current() const;
  /// The same, to be kept by an edit that takes from it.
  std::shared_ptr<const CurrentRun> source() const;

  /// Runs what a request says; that is the current run afterwards.
  void begin(v1::RunRequest request, const RunOptions& options);
  /// Steps of a generation; the current run is that of what was generated afterwards.
  std::vector<GenerationStep> generate(v1::RunRequest input,
                                       const std::vector<ChatMessage>& messages,
                                       const GenerateOptions& options);

  v1::TokenizeResponse tokenized(const std::string& text, std::optional<bool> add_bos,
                                 const CallOptions& options);

  /// Reads from the current run, which is run again if the server has lost it, all within one time.
  template <class Function>
  auto of_run(const ReadOptions& options, Function read) {
    current();
    internal::require_valid(options);
    CallTerms of_call = terms(call_options(options));
    for (int reruns = 0;; ++reruns) {
      const std::shared_ptr<const CurrentRun> run = run_;
      of_call.run_key = run->key;
      try {
        return read(*run, of_call);
      } catch (const NotFoundError& error) {
        const bool was_lost = error.reason() == "RUN_NOT_FOUND";
        if (!was_lost || !connection().options().rerun || reruns == kMostReruns) throw;
      }
      run_again(*run, of_call);
    }
  }

  /// Throws NotSupportedError if the server has not this feature.
  void require_offered(const char* feature, const std::string& what, const CallTerms& terms);

  /// Does something that takes from other runs: what of them is not where it is done is made again
  /// there, each once.
  template <class Function>
  auto bringing(const internal::Sources& sources, const CallTerms& terms, Function act) {
    for (std::set<std::string> again;;) {
      std::shared_ptr<const CurrentRun> lost;
      try {
        return act();
      } catch (const NotFoundError& error) {
        lost = source_lost(error, sources);
        if (!lost || !again.insert(lost->run_id).second) throw;
      }
      made(lost->request, lost->sources, terms);
    }
  }

  /// A value of the model alone: of the one that was run last, or the one that is served.
  template <class Request>
  Parts of_weights(const char* name, Request request, const ReadOptions& options,
                   const char* feature = "circuits");

  /// Tensors of gradients, in their order; `request` is without its run.
  std::vector<Tensor> differentiated(v1::GradientsRequest request,
                                     const internal::Sources& sources,
                                     const ReadOptions& options);

  /// What came for each of the reads.
  std::vector<Parts> fetched(const std::vector<Read>& reads, const ReadOptions& options);

 private:
  /// Of one read. Behind a proxy a run can fall to another server each time that one comes or goes;
  /// a server that forgets it each time at once has too little room.
  static constexpr int kMostReruns = 3;

  /// A run, made where its key leads.
  std::shared_ptr<const CurrentRun> made(v1::RunRequest request, internal::Sources sources,
                                         const CallTerms& terms);
  std::shared_ptr<const CurrentRun> source_lost(const NotFoundError& error,
                                                const internal::Sources& sources) const;
  void run_again(const CurrentRun& lost, const CallTerms& terms);

  std::shared_ptr<internal::Shared> shared_;
  std::shared_ptr<const CurrentRun> run_;  // shared with copies, never changed
};

}  // namespace transparent_llm
