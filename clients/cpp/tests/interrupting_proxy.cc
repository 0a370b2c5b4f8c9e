#include "interrupting_proxy.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <stdexcept>

namespace transparent_llm::test {

struct InterruptingProxy::Link {
  Link(InterruptingProxy& proxy, int client_fd, int server_fd, std::optional<std::size_t> allowed)
      : client(client_fd),
        server(server_fd),
        up([this, &proxy] { proxy.carry(client, server, std::nullopt); }),
        down([this, &proxy, allowed] { proxy.carry(server, client, allowed); }) {}
  ~Link() {
    client.shut_down();
    server.shut_down();
    up.join();
    down.join();
  }

  Socket client;
  Socket server;
  std::thread up;
  std::thread down;
};

InterruptingProxy::InterruptingProxy(const std::string& target, std::vector<std::size_t> after)
    : target_port_(std::stoi(target.substr(target.rfind(':') + 1))),
      after_(std::move(after)),
      listener_(listening()),
      address_("127.0.0.1:" + std::to_string(port_of(listener_.fd()))),
      acceptor_([this] { accept_all(); }) {}

InterruptingProxy::~InterruptingProxy() {
  listener_.shut_down();
  acceptor_.join();
  links_.clear();
}

std::size_t InterruptingProxy::interruptions() const {
  const std::lock_guard lock(mutex_);
  return interruptions_;
}

std::optional<std::size_t> InterruptingProxy::next_end() {
  const std::lock_guard lock(mutex_);
  return next_ < after_.size() ? std::optional(after_[next_++]) : std::nullopt;
}

void InterruptingProxy::wait_for_end() const {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return n_carried_ == 0; });
}

void InterruptingProxy::accept_all() {
  for (;;) {
    const int client = accept(listener_.fd(), nullptr, nullptr);
    if (client < 0) return;
    int server = -1;
    try {
      server = connected(target_port_);
    } catch (const std::runtime_error&) {
      close(client);
      continue;
    }
    {
      const std::lock_guard lock(mutex_);
      n_carried_ += 2;
    }
    links_.push_back(std::make_unique<Link>(*this, client, server, next_end()));
  }
}

void InterruptingProxy::carry(const Socket& from, const Socket& to,
                              std::optional<std::size_t> allowed) {
  std::array<char, 65536> buffer;
  std::size_t carried = 0;
  for (ssize_t got = 0; (got = recv(from.fd(), buffer.data(), buffer.size(), 0)) > 0;) {
    const auto size = static_cast<std::size_t>(got);
    if (allowed && carried + size > *allowed) {
      send_all(to.fd(), buffer.data(), *allowed - carried);
      const std::lock_guard lock(mutex_);
      ++interruptions_;
      break;
    }
    if (!send_all(to.fd(), buffer.data(), size)) break;
    carried += size;
  }
  from.shut_down();
  to.shut_down();
  const std::lock_guard lock(mutex_);
  --n_carried_;
  ended_.notify_all();
}

}  // namespace transparent_llm::test
