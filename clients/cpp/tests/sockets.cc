#include "sockets.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <stdexcept>

namespace transparent_llm::test {
namespace {

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

const sockaddr* plain(const sockaddr_in& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

int new_socket() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) throw std::runtime_error("no socket");
  return fd;
}

}  // namespace

Socket::~Socket() { close(fd_); }

void Socket::shut_down() const { shutdown(fd_, SHUT_RDWR); }

int listening() {
  const int fd = new_socket();
  const sockaddr_in address = loopback(0);
  if (bind(fd, plain(address), sizeof(address)) != 0 || listen(fd, 16) != 0)
    throw std::runtime_error("cannot listen");
  return fd;
}

int port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

bool send_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    data += sent;
    size -= static_cast<std::size_t>(sent);
  }
  return true;
}

int connected(int port) {
  const int fd = new_socket();
  const sockaddr_in address = loopback(port);
  if (connect(fd, plain(address), sizeof(address)) == 0) return fd;
  close(fd);
  throw std::runtime_error("nobody listens");
}

}  // namespace transparent_llm::test
