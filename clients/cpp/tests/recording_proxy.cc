#include "recording_proxy.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <utility>

namespace transparent_llm::test {
namespace {

/// Carries bytes both ways until one of them ends.
void carry(int one, int other) {
  std::array<pollfd, 2> ends = {pollfd{one, POLLIN, 0}, pollfd{other, POLLIN, 0}};
  std::array<char, 4096> buffer;
  while (poll(ends.data(), ends.size(), -1) > 0) {
    for (std::size_t i = 0; i < ends.size(); ++i) {
      if (ends[i].revents == 0) continue;
      const ssize_t count = read(ends[i].fd, buffer.data(), buffer.size());
      if (count <= 0 || !send_all(ends[1 - i].fd, buffer.data(), static_cast<std::size_t>(count)))
        return;
    }
  }
}

}  // namespace

RecordingProxy::RecordingProxy(std::string answer)
    : answer_(std::move(answer)),
      listener_(listening()),
      address_("127.0.0.1:" + std::to_string(port_of(listener_.fd()))),
      acceptor_([this] { accept_all(); }) {}

RecordingProxy::~RecordingProxy() {
  listener_.shut_down();
  acceptor_.join();
}

std::vector<std::string> RecordingProxy::heard() const {
  const std::lock_guard lock(mutex_);
  return heard_;
}

void RecordingProxy::accept_all() {
  for (;;) {
    const int client = accept(listener_.fd(), nullptr, nullptr);
    if (client < 0) return;
    links_.emplace_back([this, client] { serve(client); });
  }
}

void RecordingProxy::serve(int fd) {
  const Socket client(fd);
  std::string head;
  for (char sign = 0; !head.ends_with("\r\n\r\n") && read(fd, &sign, 1) == 1;) head += sign;
  {
    const std::lock_guard lock(mutex_);
    heard_.push_back(head);
  }
  if (!answer_.empty()) {
    send_all(fd, answer_.data(), answer_.size());
    return;
  }
  const std::string asked = head.substr(0, head.find(" HTTP/"));
  const Socket server(connected(std::stoi(asked.substr(asked.rfind(':') + 1))));
  const std::string yes = "HTTP/1.1 200 OK\r\n\r\n";
  if (send_all(fd, yes.data(), yes.size())) carry(fd, server.fd());
}

}  // namespace transparent_llm::test
