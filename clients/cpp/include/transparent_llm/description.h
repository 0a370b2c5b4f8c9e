// What a server says about itself and its models. The fields are those of model.proto,
// and `ServerInfo`'s those of service.proto.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "transparent_llm/dtype.h"

namespace transparent_llm {

/// Shape and name of a model.
struct ModelInfo {
  /// The name under which the server serves it.
  std::string name;
  /// Number of parameters, shared ones counted once.
  std::uint64_t n_params_estimate = 0;
  std::uint32_t n_layers = 0;
  /// Query heads per layer.
  std::uint32_t n_heads = 0;
  std::uint32_t d_model = 0;
  /// Rows of the unembedding; can exceed what the tokenizer uses.
  std::uint32_t d_vocab = 0;
};

/// One check that a model passed when it was loaded.
struct ParityCheck {
  /// What was compared, for example "logits_vs_huggingface".
  std::string name;
  /// Largest absolute difference that was measured.
  double max_abs_error = 0;
  /// The bound it had to stay under.
  double tolerance = 0;
};

/// Whether a model can be used at once.
enum class ModelState {
  kLoaded,
  kLoading,
  /// The first call for it loads it.
  kUnloaded,
  /// Loading it failed; after some time a call tries again.
  kFailed,
};

/// Everything that can be known of a model before it runs anything. Of one that was never loaded
/// only its names, how it will be loaded, `state` and `detail` are known.
struct ModelDescription {
  ModelInfo info;
  /// SHA-256 (hex) over configuration, weights and tokenizer.
  std::string digest;
  /// The transformers class, for example "GPT2LMHeadModel".
  std::string architecture;
  /// Of weights and values; absent if it is not known, or not known to this client.
  std::optional<Dtype> dtype;
  /// Where it computes, for example "cpu" or "cuda:0".
  std::string device;
  /// Longest input in tokens; 0 where it is not known.
  std::uint32_t n_ctx = 0;
  /// Neurons of each layer, as `neuron_activations` counts them.
  std::vector<std::uint32_t> d_ffn;
  /// Whether a beginning-of-sequence token is put before every sentence.
  bool prepends_bos = false;
  /// The id of padded positions.
  std::int32_t pad_token_id = 0;
  std::vector<ParityCheck> parity;
  /// Name of an RPC -> why this model cannot answer it.
  std::map<std::string, std::string> unsupported;
  /// How a value is defined where a definition had to be chosen.
  std::map<std::string, std::string> conventions;
  /// What each position of each row takes of the server's store, and each pair of positions; 0 if
  /// not known.
  std::uint64_t run_bytes_per_position = 0;
  std::uint64_t run_bytes_per_position_pair = 0;
  ModelState state = ModelState::kLoaded;
  /// Further names under which it is served.
  std::vector<std::string> aliases;
  /// In words: what loading does now, why it failed, or where the model would come from.
  std::string detail;
  /// The branch, tag or commit that was asked for.
  std::string revision;
  /// How the weights were quantized when they were loaded. Empty: not at all.
  std::string quantization;
  /// Device -> number of layers on it, where the model lies on more than one.
  std::map<std::string, std::uint32_t> devices;
  /// Bytes of its weights; 0 if not known.
  std::uint64_t weight_bytes = 0;
  /// Loaded when it is first asked for.
  bool on_demand = false;
  /// What runs it: "taps" on the plain model, or TransformerLens' "bridge". Empty: not known.
  std::string engine;
};

/// What a server allows. Units are in the names; 0 where a limit is not known or does not exist.
struct Limits {
  std::uint64_t max_tokens_per_run = 0;
  std::uint64_t max_sentences_per_run = 0;
  std::uint64_t run_store_bytes = 0;
  double run_ttl_seconds = 0;
  std::uint32_t max_chunk_bytes = 0;
  std::uint32_t queue_length = 0;
  /// One answer: a tensor, or all of a `fetch`.
  std::uint64_t max_read_bytes = 0;
  std::uint64_t run_bytes_per_owner = 0;
  /// Calls under way at the same time, and those of one owner.
  std::uint32_t max_streams = 0;
  std::uint32_t max_streams_per_owner = 0;
  /// Weights of all loaded models together.
  std::uint64_t model_bytes = 0;
  /// Cells of one call of a sweep.
  std::uint32_t max_sweep_cells = 0;
  /// Cells times rows times positions of one call of a sweep; 0: as many as there are.
  std::uint64_t max_sweep_positions = 0;
};

/// Sentences that the server's operator offers: see `Client::dataset`.
struct DatasetDescription {
  std::string name;
  std::uint32_t n_sentences = 0;
};

/// The answer of `Client::server_info`.
struct ServerInfo {
  /// Version of the schema that the server speaks, "MAJOR.MINOR".
  std::string api_version;
  /// Version of the server's software.
  std::string server_version;
  std::vector<ModelDescription> models;
  Limits limits;
  /// Optional abilities, by name.
  std::vector<std::string> features;
  /// Versions of the libraries that compute the values.
  std::map<std::string, std::string> versions;
  /// Runs of the caller that are stored now, and their bytes.
  std::uint64_t stored_runs = 0;
  std::uint64_t stored_run_bytes = 0;
  /// What the operator offers to everyone who may call.
  std::vector<DatasetDescription> datasets;
};

}  // namespace transparent_llm
