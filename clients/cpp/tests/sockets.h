// Sockets of this host, for proxies of tests.

#pragma once

#include <cstddef>

namespace transparent_llm::test {

/// A file descriptor of a socket, closed at its end.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket();
  int fd() const { return fd_; }
  /// Ends what others wait for on it.
  void shut_down() const;

 private:
  int fd_;
};

/// A new socket that listens on a free port.
int listening();
int port_of(int fd);
/// A new connection to a port; throws if there is none.
int connected(int port);
bool send_all(int fd, const char* data, std::size_t size);

}  // namespace transparent_llm::test
