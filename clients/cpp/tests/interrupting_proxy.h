// A TCP proxy between client and server that interrupts connections where a test wants it.

#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "sockets.h"

namespace transparent_llm::test {

/// Forwards to `target` (127.0.0.1:PORT). Each entry of `after` is for one connection, in their
/// order: after so many bytes to the client it is closed. Later connections are not.
class InterruptingProxy {
 public:
  InterruptingProxy(const std::string& target, std::vector<std::size_t> after);
  ~InterruptingProxy();

  const std::string& address() const { return address_; }
  std::size_t interruptions() const;
  /// Until every connection that was made has ended.
  void wait_for_end() const;

 private:
  struct Link;

  void accept_all();
  void carry(const Socket& from, const Socket& to, std::optional<std::size_t> allowed);
  std::optional<std::size_t> next_end();

  const int target_port_;
  mutable std::mutex mutex_;
  std::vector<std::size_t> after_;
  std::size_t next_ = 0;
  std::size_t interruptions_ = 0;
  std::size_t n_carried_ = 0;  // directions that bytes may still come in
  mutable std::condition_variable ended_;
  Socket listener_;
  std::string address_;
  std::vector<std::unique_ptr<Link>> links_;
  std::thread acceptor_;
};

}  // namespace transparent_llm::test
