// A server that answers as a test says: what a real one does rarely, or never should.

#pragma once

#include <grpcpp/server.h>

#include <functional>
#include <memory>
#include <string>

#include "transparent_llm/v1/service.grpc.pb.h"

namespace transparent_llm::test {

using Writer = grpc::ServerWriter<v1::TensorChunk>;
using GenerationWriter = grpc::ServerWriter<v1::GenerateResponse>;
using SweepWriter = grpc::ServerWriter<v1::SweepResponse>;

class ScriptedServer final : public v1::TransparentLlmService::Service {
 public:
  ScriptedServer();
  ~ScriptedServer() override;
  const std::string& address() const { return address_; }

  // What it does. The answer to Run is a run of one row of two tokens, if nothing else is said; the
  // others do not exist.
  std::function<grpc::Status(const v1::RunRequest&, v1::RunResponse*)> on_run;
  std::function<grpc::Status(const v1::ResidualInRequest&, Writer*)> on_residual_in;
  std::function<grpc::Status(const v1::DecomposedFfnOutRequest&, Writer*)> on_decomposed_ffn_out;
  std::function<grpc::Status(const v1::NeuronOutputRequest&, Writer*)> on_neuron_output;
  std::function<grpc::Status(const v1::NeuronOutputsRequest&, Writer*)> on_neuron_outputs;
  std::function<grpc::Status(const v1::FetchRequest&, Writer*)> on_fetch;
  std::function<grpc::Status(v1::ServerInfoResponse*)> on_server_info;
  std::function<grpc::Status(const v1::GenerateRequest&, GenerationWriter*)> on_generate;
  std::function<grpc::Status(const v1::PlanRequest&, v1::PlanResponse*)> on_plan;
  std::function<grpc::Status(const v1::SweepRequest&, SweepWriter*)> on_sweep;
  std::function<grpc::Status(const v1::GradientsRequest&, Writer*)> on_gradients;
  std::function<grpc::Status(const v1::CompareRunsRequest&, v1::CompareRunsResponse*)> on_compare;
  std::function<grpc::Status(const v1::DatasetRequest&, v1::DatasetResponse*)> on_dataset;

  grpc::Status Run(grpc::ServerContext*, const v1::RunRequest* request,
                   v1::RunResponse* response) override;
  grpc::Status ServerInfo(grpc::ServerContext*, const v1::ServerInfoRequest*,
                          v1::ServerInfoResponse*) override;
  grpc::Status ResidualIn(grpc::ServerContext*, const v1::ResidualInRequest*, Writer*) override;
  grpc::Status DecomposedFfnOut(grpc::ServerContext*, const v1::DecomposedFfnOutRequest*,
                                Writer*) override;
  grpc::Status NeuronOutput(grpc::ServerContext*, const v1::NeuronOutputRequest*, Writer*) override;
  grpc::Status NeuronOutputs(grpc::ServerContext*, const v1::NeuronOutputsRequest*,
                             Writer*) override;
  grpc::Status Generate(grpc::ServerContext*, const v1::GenerateRequest*,
                        GenerationWriter*) override;
  grpc::Status Plan(grpc::ServerContext*, const v1::PlanRequest*, v1::PlanResponse*) override;
  grpc::Status Sweep(grpc::ServerContext*, const v1::SweepRequest*, SweepWriter*) override;
  grpc::Status Gradients(grpc::ServerContext*, const v1::GradientsRequest*, Writer*) override;
  grpc::Status CompareRuns(grpc::ServerContext*, const v1::CompareRunsRequest*,
                           v1::CompareRunsResponse*) override;
  grpc::Status Dataset(grpc::ServerContext*, const v1::DatasetRequest*,
                       v1::DatasetResponse*) override;
  grpc::Status Fetch(grpc::ServerContext*, const v1::FetchRequest*, Writer*) override;

 private:
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace transparent_llm::test
