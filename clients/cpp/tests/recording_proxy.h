// An HTTP proxy on this host that keeps what it is asked.

#pragma once

#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "sockets.h"

namespace transparent_llm::test {

/// Makes the tunnels that it is asked for to 127.0.0.1, or gives an answer of the test's and hangs
/// up.
class RecordingProxy {
 public:
  explicit RecordingProxy(std::string answer = {});
  ~RecordingProxy();

  std::string url() const { return "http://" + address_; }
  /// All that was asked: "CONNECT HOST:PORT HTTP/1.1" and the headers after it.
  std::vector<std::string> heard() const;

 private:
  void accept_all();
  void serve(int client);

  const std::string answer_;
  mutable std::mutex mutex_;
  std::vector<std::string> heard_;
  Socket listener_;
  std::string address_;
  std::vector<std::jthread> links_;
  std::thread acceptor_;
};

}  // namespace transparent_llm::test
