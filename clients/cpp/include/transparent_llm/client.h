// The client: a language model's insides, with the model on another machine.

#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "transparent_llm/analyses.h"
#include "transparent_llm/comparison.h"
#include "transparent_llm/description.h"
#include "transparent_llm/edits.h"
#include "transparent_llm/errors.h"
#include "transparent_llm/generation.h"
#include "transparent_llm/gradients.h"
#include "transparent_llm/metrics.h"
#include "transparent_llm/options.h"
#include "transparent_llm/read.h"
#include "transparent_llm/sweeps.h"
#include "transparent_llm/tensor.h"
#include "transparent_llm/values.h"

namespace transparent_llm {

namespace internal {
struct CurrentRun;
}

/// The version of this library.
extern const char* const kVersion;

/// A language model whose inside can be read: run sentences, then ask.
///
/// A client has one current run, which all reads are of. Indices count from 0. Values come in the
/// model's own precision unless `ReadOptions::dtype` asks for another.
///
/// Threads: one thread at a time may use a client; `copy()` gives another thread its own, on the
/// same connection. Only `close()` and the request of a stop may come from other threads during a
/// call.
///
/// Every call throws subclasses of `Error`: UnavailableError, DeadlineError, CancelledError,
/// AuthError, BusyError, InternalError, and those that are named at the methods. A lost connection
/// is waited for (`Options::reconnect`), within the call's time, and a broken transfer goes on where it was
/// cut. Reads throw NotRunError before any run, IndexOutOfRangeError, and TooLargeError for more
/// than `Options::max_bytes` or than the server allows.
class Client {
 public:
  /// A client of the server at `target`: HOST:PORT, HOST (port 50051), unix:PATH or another gRPC
  /// name. Nothing is sent before the first call.
  ///
  /// Throws InvalidRequestError for options that contradict each other, a token that cannot be
  /// sent, or files of certificates that cannot be read.
  static Client connect(const std::string& target, Options options = {});
  /// A client of several servers of the same models. Each run lives on one of them, by its input;
  /// where that one is lost, it is run again on another. Nothing is shared between them but what
  /// they serve.
  ///
  /// Throws as `connect`; InvalidRequestError for no target, more than 1024, or one that is named
  /// twice.
  static Client connect_all(const std::vector<std::string>& targets, Options options = {});

  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client();

  /// Another client on the same connection, for another thread. It starts with the same current
  /// run; running either leaves the other as it was.
  Client copy() const;

  /// Closes the connection, also that of all copies. Calls in progress throw CancelledError, later
  /// ones InvalidRequestError. Any thread may call it, more than once.
  void close();

  /// What the server serves and allows, and how exact its models were at load.
  ServerInfo server_info(const CallOptions& options = {});
  /// The sentences of a data set that the server's operator offers; `server_info` names them.
  ///
  /// Throws InvalidRequestError if there is none of this name, NotSupportedError of an older server.
  std::vector<std::string> dataset(const std::string& name, const CallOptions& options = {});
  /// Whether the server has loaded its models and answers calls (the standard health check). Asked
  /// once; false if none answers.
  bool is_serving(const CallOptions& options = {});

  /// Shape and name of the model. Needs no run.
  ///
  /// Throws NotFoundError (MODEL_NOT_FOUND), and InvalidRequestError (MODEL_REQUIRED) if several
  /// are served and none was named.
  ModelInfo model_info(const CallOptions& options = {});

  /// Runs sentences as one batch, which becomes what all other methods read.
  ///
  /// Throws InvalidRequestError for no sentence, one without any token (EMPTY_INPUT), or text that
  /// is not UTF-8; TooLargeError (TOO_LONG) for a sentence longer than the model's context: nothing
  /// is ever truncated silently. Of edits: TooLargeError (TOO_LONG) for more than 64, and
  /// NotSupportedError where server or model cannot make them. A run that they take from is made
  /// again if the server has lost it.
  void run(const std::vector<std::string>& sentences, const RunOptions& options = {});
  /// Runs token ids, one list a row; nothing is put before them. Throws as `run`, and
  /// InvalidRequestError (UNKNOWN_TOKEN).
  void run_tokens(const std::vector<std::vector<Index>>& token_ids,
                  const RunOptions& options = {});
  /// Goes on with texts, token by token, each as if it were alone; they are tokenized as `run` would.
  /// What came is returned, and each step is told to `GenerateOptions::on_step` as it comes.
  ///
  /// Afterwards the current run is that of the prompts and all new tokens but the last of each row,
  /// which the model never read: everything inside can be read of it. A generation that fails leaves
  /// the current run as it was.
  ///
  /// Throws InvalidRequestError for an option that makes no sense; TooLargeError for more tokens
  /// than the context, or the server, has room for; NotSupportedError where the server cannot, or
  /// the model cannot be edited; BusyError if there is no room for another generation now;
  /// UnavailableError if the server was lost after the first step, with the number of "steps".
  std::vector<GenerationStep> generate(const std::vector<std::string>& prompts,
                                       const GenerateOptions& options = {});
  /// The same of token ids, one list a row; nothing is put before them.
  std::vector<GenerationStep> generate_tokens(const std::vector<std::vector<Index>>& token_ids,
                                              const GenerateOptions& options = {});
  /// The answer to a conversation, which the chat template of the model's tokenizer makes a text of,
  /// up to where the model is to answer. Throws as `generate`, and NotSupportedError for a tokenizer
  /// without one, InvalidRequestError for no message, TooLargeError for more than 1024.
  std::vector<GenerationStep> generate_chat(const std::vector<ChatMessage>& messages,
                                            const GenerateOptions& options = {});
  /// Makes the same changes of the current run at many places, one cell at a time, and measures what
  /// each does. Templates are made in every cell with its coordinates; their rows are those of the run
  /// that are swept, from 0. Nothing of it is stored.
  ///
  /// Throws as reads, and InvalidRequestError for a run with edits of its own, or no template, cell or
  /// metric; TooLargeError for more than 16 metrics, 512 edits of one cell, or what the server computes
  /// at once; NotSupportedError where server or model cannot.
  Swept sweep(const std::vector<Edit>& templates, const std::vector<SweepCell>& cells,
              const std::vector<Metric>& metrics, const SweepOptions& options = {});
  /// Differentiates a number of each row of the current run by what that row has at some sites: one
  /// forward and one backward pass for all of them.
  ///
  /// Throws as `sweep`; TooLargeError for more than 4096 sites or 16 other runs.
  Gradients gradients(const Metric& metric, const std::vector<SiteGradient>& sites,
                      const GradientOptions& options = {});
  /// Averages gradients along a path.
  IntegratedGradients integrated_gradients(const Metric& metric, const GradientPath& path,
                                           const GradientOptions& options = {});
  /// Scores all edges between parts of the model at once, by attribution patching: what a sender adds
  /// to the residual stream in the current run of `source`, less what it adds in this one, times the
  /// gradient of the metric by the stream as one receiver alone reads it, through its norm. The metric
  /// is no projection.
  EdgeAttribution edge_attribution(const Metric& metric, const Client& source,
                                   const EdgeAttributionOptions& options = {});
  /// What the current run says of the next token beside that of `other`, row by row. Throws as reads,
  /// and InvalidRequestError for a run of more or fewer rows, or, by position, of other tokens;
  /// IndexOutOfRangeError for a position that a row does not have.
  std::vector<RowComparison> compare(const Client& other, const CompareOptions& options = {});
  /// What each edit of the current run did, in their order. No call is made.
  std::vector<EditEffect> effects() const;
  /// Tells the server that the current run is not needed any more. Reading it again runs it again.
  void release(const CallOptions& options = {});
  /// The server's name of the current run.
  std::string run_id() const;

  /// Number of sentences in the current run. No call is made.
  std::size_t batch_size() const;
  /// Token ids of the current run, padded on the right: I64 [batch pos]. No call is made.
  Tensor tokens(const ReadOptions& options = {}) const;
  /// Whether a position holds a token (1) or padding (0): BOOL [batch pos]. No call is made. Throws
  /// NotSupportedError if the server does not tell.
  Tensor mask(const ReadOptions& options = {}) const;
  /// The text of each token by itself, leading space included. Throws InvalidRequestError
  /// (UNKNOWN_TOKEN).
  std::vector<std::string> tokens_to_strings(std::span<const Index> tokens,
                                             const CallOptions& options = {});

  /// The position of the last token of each row, which padding may follow. No call is made. Throws
  /// as `mask`.
  std::vector<std::size_t> last() const;
  /// Token ids of a text, as `run({text})` would have them; no run is made. `add_bos`: whether the
  /// beginning token is put before a text that does not start with it; absent: as the model wants
  /// it.
  ///
  /// Throws InvalidRequestError for a text that is not UTF-8, or has no token (EMPTY_INPUT);
  /// TooLargeError (TOO_LONG) for one longer than the model's context; NotFoundError (MODEL_CHANGED)
  /// if another model than that of the current run is served by now.
  std::vector<Index> to_tokens(const std::string& text, std::optional<bool> add_bos = std::nullopt,
                               const CallOptions& options = {});
  /// The text of each of the tokens that `to_tokens` gives; it throws the same.
  std::vector<std::string> to_str_tokens(const std::string& text,
                                         std::optional<bool> add_bos = std::nullopt,
                                         const CallOptions& options = {});
  /// The id of a text that is one token, such as " Mary"; the space in front belongs to it. Throws
  /// InvalidRequestError, with the number of "tokens", if it is several, which the message names;
  /// otherwise as `to_tokens`.
  Index to_single_token(const std::string& text, const CallOptions& options = {});
  /// The tokens of the current run, id beside text. Padding is left out, where it is known.
  std::vector<TokenAt> describe_run(const CallOptions& options = {});

  /// The model's output: [batch pos d_vocab].
  Tensor logits(const ReadOptions& options = {});
  /// Projects a vector [d_model] of the residual stream to the vocabulary: [vocab]; or each row of
  /// a matrix [n d_model]: [n vocab]. With `normalize` the final norm and the model's own
  /// post-processing of logits are applied; without, it is the plain product with the unembedding.
  ///
  /// Throws InvalidRequestError (INVALID_SHAPE, INVALID_DTYPE) for a `t` that is neither.
  Tensor unembed(const Tensor& t, bool normalize, const ReadOptions& options = {});
  /// The residual stream as it enters a layer: [batch pos d_model].
  Tensor residual_in(Index layer, const ReadOptions& options = {});
  /// The residual stream after attention's output was added: [batch pos d_model].
  Tensor residual_after_attn(Index layer, const ReadOptions& options = {});
  /// The residual stream as it leaves a layer: [batch pos d_model].
  Tensor residual_out(Index layer, const ReadOptions& options = {});
  /// What the feed-forward part added to the residual stream, bias included: [batch pos d_model].
  Tensor ffn_out(Index layer, const ReadOptions& options = {});
  /// What each neuron added, its activation times its output vector: [hidden d_model]. Without
  /// slices and dtype the product is made here, from output vectors that are kept within
  /// `Options::weights_bytes`; the bits are the server's.
  ///
  /// Throws NotFoundError (MODEL_CHANGED) if another model is served by now.
  Tensor decomposed_ffn_out(Index batch_i, Index layer, Index pos, const ReadOptions& options = {});
  /// Activations right after the activation function: [d_ffn].
  Tensor neuron_activations(Index batch_i, Index layer, Index pos, const ReadOptions& options = {});
  /// The raw output weight vector of one neuron: [d_model]. Needs no run.
  Tensor neuron_output(Index layer, Index neuron, const ReadOptions& options = {});
  /// Attention probabilities after softmax; a row is the position that attends: [query_pos
  /// key_pos].
  Tensor attention_matrix(Index batch_i, Index layer, Index head, const ReadOptions& options = {});
  /// What a head, or without a head the whole attention with its bias, added to the residual
  /// stream: [d_model].
  Tensor attention_output(Index batch_i, Index layer, Index pos,
                          std::optional<Index> head = std::nullopt,
                          const ReadOptions& options = {});
  /// What each source position gave each target position through each head: [target source head
  /// d_model]. Without slices and dtype the factors are sent and the product is made here; the bits
  /// are the server's.
  Tensor decomposed_attn(Index batch_i, Index layer, const ReadOptions& options = {});

  // Analyses: small tensors that the server computes next to the weights. Padding has no part in
  // them. They throw as reads, and InvalidRequestError for what they are asked for.

  /// The logit lens: what the residual stream of a row at one place of the model says of the next
  /// token.
  LayerLens layer_lens(Index batch_i, Index layer, const LayerLensOptions& asked = {},
                       const ReadOptions& options = {});
  /// The log-probability and the rank that the model gives to the token that follows each position.
  TokenLogprobs token_logprobs(Index batch_i, const ReadOptions& options = {});
  /// What part of the residual stream after attention each source gave through each head, and what
  /// was there before.
  AttnContributions attn_contributions(Index batch_i, Index layer,
                                       ContributionNorm norm = ContributionNorm::kL1,
                                       const ReadOptions& options = {});
  /// The edges of one layer of the contribution graph.
  ContributionEdges contribution_edges(Index batch_i, Index layer, const EdgeOptions& asked = {},
                                       const ReadOptions& options = {});
  /// Those into some positions, as rows of a graph that grows: [target source] and [target].
  ContributionEdges contribution_edges_to(Index batch_i, Index layer,
                                          const EdgeToOptions& asked = {},
                                          const ReadOptions& options = {});
  /// The `k` neurons that contribute most to the residual stream at one position; at least one.
  NeuronContributions neuron_contributions(Index batch_i, Index layer, Index pos, Index k,
                                           ContributionNorm norm = ContributionNorm::kL1,
                                           const ReadOptions& options = {});
  /// A logit before any soft cap, or the difference of two, and what it is the sum of.
  LogitTerms logit_terms(Index batch_i, Index pos, Index token,
                         std::optional<Index> minus_token = std::nullopt,
                         const ReadOptions& options = {});
  /// The terms of a logit, or of the difference of two, that the parts of a layer gave.
  LogitAttribution logit_attribution(Index batch_i, Index layer, Index pos, Index token,
                                     std::optional<Index> minus_token = std::nullopt,
                                     const ReadOptions& options = {});
  /// Those that each source position gave through each head of a layer: F32 [head source].
  Tensor source_attribution(Index batch_i, Index layer, Index pos, Index token,
                            std::optional<Index> minus_token = std::nullopt,
                            const ReadOptions& options = {});
  /// The `k` largest terms by absolute value that single neurons of a layer gave; at least one.
  NeuronAttribution neuron_attribution(Index batch_i, Index layer, Index pos, Index token, Index k,
                                       std::optional<Index> minus_token = std::nullopt,
                                       const ReadOptions& options = {});
  /// The attention probabilities of all heads of a layer: [head query_pos key_pos].
  Tensor attention_matrices(Index batch_i, Index layer, const ReadOptions& options = {});
  /// How much each head of a layer attends in one way, as a mean over the positions of a row that
  /// can: F32 [head].
  Tensor head_scores(Index batch_i, Index layer, HeadScoreKind kind = HeadScoreKind::kInduction,
                     const ReadOptions& options = {});
  /// The length of what each source gave each target through each head: F32 [head target source].
  Tensor value_weighted_norms(Index batch_i, Index layer, const ReadOptions& options = {});

  // What sparse autoencoders and transcoders find that the server's operator gave. They throw as
  // analyses, and NotSupportedError for a model without any.

  /// The `k` features that are most active at each position of a row; at least one.
  SaeFeatures features(Index batch_i, Index k, const SaeOptions& asked = {},
                       const ReadOptions& options = {});
  /// Activations of chosen features, negative ones from the end: F32 [pos feature].
  Tensor feature_activations(Index batch_i, std::vector<Index> feature_ids,
                             const SaeOptions& asked = {}, const ReadOptions& options = {});

  // Weights of attention heads and what is made of them, of the model that was run last or, before
  // any run, of the one that is served. They throw NotSupportedError for layers without such weights,
  // TooLargeError for more work than the server does for one answer, and NotFoundError
  // (MODEL_CHANGED) if another model is served by now.

  /// The weights of one head; those of keys and values are what it shares with others, if it does.
  HeadWeights head_weights(Index layer, Index head, const ReadOptions& options = {});
  /// How much of what each head writes each later head reads: F32 [layer head later_layer
  /// later_head]. ||A B|| / (||A|| ||B||) in Frobenius norms, where A is v o of the earlier head, and
  /// B of the later one q k^T, k q^T or v o. NaN where the first is not in an earlier layer, and
  /// where a product is 0. Slices of layers save their work.
  Tensor composition_scores(CompositionKind kind = CompositionKind::kK,
                            const ReadOptions& options = {});
  /// How much each head makes the tokens that it attends to more likely, or, of kQK, attends to
  /// tokens that are the same as its own: F32 [layer head]. sum(Re(e)) / sum(|e|) over the
  /// eigenvalues e of W_E v o W_U, or of W_E q k^T W_E^T: near 1 a head copies, near -1 it
  /// suppresses; NaN where all are 0.
  Tensor copying_scores(HeadCircuit circuit = HeadCircuit::kOV, const ReadOptions& options = {});

  /// What reads of the current run would bring, in their order. Nothing is computed. Throws as the
  /// reads would.
  std::vector<PlannedRead> plan(const std::vector<Read>& reads, const ReadOptions& options = {});

  /// One value, as the method of its name gives it; `tokens` come over the wire.
  Tensor read(const Read& read, const ReadOptions& options = {});
  /// The same for a value of one tensor or of several.
  Parts read_parts(const Read& read, const ReadOptions& options = {});
  /// Many values of the current run in one stream, in their order. Slices and dtype hold for each
  /// of them. Throws InvalidRequestError for a read of several tensors, which `fetch_parts` takes.
  std::vector<Tensor> fetch(const std::vector<Read>& reads, const ReadOptions& options = {});
  /// The same for values of one tensor or of several.
  std::vector<Parts> fetch_parts(const std::vector<Read>& reads, const ReadOptions& options = {});
  /// One value, chunk by chunk, for values that need not or cannot be held as a whole. A chunk may
  /// end within an element; an empty value gives one empty chunk. `Options::max_bytes` does not
  /// apply.
  ///
  /// An interrupted transfer goes on where it broke off. If the server cannot promise the same bits
  /// again, or has to run the input again, the value begins again at offset 0, and what came before
  /// must be thrown away. What `sink` throws ends the transfer and comes out of here.
  void read_chunks(const Read& read, const ChunkSink& sink, const ReadOptions& options = {});

 private:
  friend class Edit;
  friend class Vector;
  friend class GradientPath;
  friend class Metric;
  friend class SiteGradient;
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  Impl& impl() const;
  std::shared_ptr<const internal::CurrentRun> current_run() const;

  std::unique_ptr<Impl> impl_;
};

}  // namespace transparent_llm
