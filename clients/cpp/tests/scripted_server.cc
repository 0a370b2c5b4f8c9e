#include "scripted_server.h"

#include <grpcpp/server_builder.h>

#include <chrono>

#include "wire.h"

namespace transparent_llm::test {
namespace {

template <class Function, class... Arguments>
grpc::Status scripted(const Function& function, const Arguments&... arguments) {
  return function ? function(arguments...) : grpc::Status(grpc::UNIMPLEMENTED, "not in the script");
}

}  // namespace

ScriptedServer::ScriptedServer() {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  address_ = "127.0.0.1:" + std::to_string(port);
}

ScriptedServer::~ScriptedServer() { server_->Shutdown(std::chrono::system_clock::now()); }

grpc::Status ScriptedServer::Run(grpc::ServerContext*, const v1::RunRequest* request,
                                 v1::RunResponse* response) {
  if (on_run) return on_run(*request, response);
  *response = run_response("the-run", "digest");
  return grpc::Status::OK;
}

grpc::Status ScriptedServer::ServerInfo(grpc::ServerContext*, const v1::ServerInfoRequest*,
                                        v1::ServerInfoResponse* response) {
  return scripted(on_server_info, response);
}

grpc::Status ScriptedServer::ResidualIn(grpc::ServerContext*, const v1::ResidualInRequest* request,
                                        Writer* writer) {
  return scripted(on_residual_in, *request, writer);
}

grpc::Status ScriptedServer::DecomposedFfnOut(grpc::ServerContext*,
                                              const v1::DecomposedFfnOutRequest* request,
                                              Writer* writer) {
  return scripted(on_decomposed_ffn_out, *request, writer);
}

grpc::Status ScriptedServer::NeuronOutput(grpc::ServerContext*,
                                          const v1::NeuronOutputRequest* request, Writer* writer) {
  return scripted(on_neuron_output, *request, writer);
}

grpc::Status ScriptedServer::NeuronOutputs(grpc::ServerContext*,
                                           const v1::NeuronOutputsRequest* request,
                                           Writer* writer) {
  return scripted(on_neuron_outputs, *request, writer);
}

grpc::Status ScriptedServer::Generate(grpc::ServerContext*, const v1::GenerateRequest* request,
                                      GenerationWriter* writer) {
  return scripted(on_generate, *request, writer);
}

grpc::Status ScriptedServer::Plan(grpc::ServerContext*, const v1::PlanRequest* request,
                                  v1::PlanResponse* response) {
  return scripted(on_plan, *request, response);
}

grpc::Status ScriptedServer::Sweep(grpc::ServerContext*, const v1::SweepRequest* request,
                                   SweepWriter* writer) {
  return scripted(on_sweep, *request, writer);
}

grpc::Status ScriptedServer::Gradients(grpc::ServerContext*, const v1::GradientsRequest* request,
                                       Writer* writer) {
  return scripted(on_gradients, *request, writer);
}

grpc::Status ScriptedServer::CompareRuns(grpc::ServerContext*,
                                         const v1::CompareRunsRequest* request,
                                         v1::CompareRunsResponse* response) {
  return scripted(on_compare, *request, response);
}

grpc::Status ScriptedServer::Dataset(grpc::ServerContext*, const v1::DatasetRequest* request,
                                     v1::DatasetResponse* response) {
  return scripted(on_dataset, *request, response);
}

grpc::Status ScriptedServer::Fetch(grpc::ServerContext*, const v1::FetchRequest* request,
                                   Writer* writer) {
  return scripted(on_fetch, *request, writer);
}

}  // namespace transparent_llm::test
