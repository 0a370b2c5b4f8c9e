#include "route.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "legible.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

constexpr const char* kVariable = "TRANSPARENT_LLM_PROXY";
constexpr std::string_view kNone = "none", kEnvironment = "environment";
constexpr std::array kProxies = {"grpc_proxy", "GRPC_PROXY", "https_proxy", "HTTPS_PROXY",
                                 "http_proxy", "all_proxy",  "ALL_PROXY"};
constexpr std::array kExceptions = {"no_grpc_proxy", "NO_GRPC_PROXY", "no_proxy", "NO_PROXY"};
constexpr std::array<std::string_view, 12> kLocalSuffixes = {
    ".localhost", ".local", ".localdomain", ".internal", ".intranet", ".private",
    ".corp",      ".home",  ".lan",         ".svc",      ".test",     ".home.arpa"};
constexpr std::array<std::string_view, 11> kLocalNetworks = {
    "127.0.0.0/8",    "::1/128",       "0.0.0.0/8",      "::/128",    "10.0.0.0/8", "172.16.0.0/12",
    "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fe80::/10", "fc00::/7"};

/// An address of IPv6; one of IPv4 is mapped into it.
using Address = std::array<std::uint8_t, 16>;

std::optional<Address> address_of(const std::string& text) {
  Address address = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (inet_pton(AF_INET, text.c_str(), address.data() + 12) == 1) return address;
  if (inet_pton(AF_INET6, text.c_str(), address.data()) == 1) return address;
  return std::nullopt;
}

std::optional<std::size_t> number_of(std::string_view digits) {
  if (digits.empty() || digits.size() > 5) return std::nullopt;
  std::size_t number = 0;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return std::nullopt;
    number = number * 10 + static_cast<std::size_t>(digit - '0');
  }
  return number;
}

/// Whether an address lies in "ADDRESS/BITS"; none if that is no block.
std::optional<bool> is_in(const std::string& host, std::string_view block) {
  const std::size_t slash = block.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const std::string first(block.substr(0, slash));
  const auto network = address_of(first);
  auto bits = number_of(block.substr(slash + 1));
  const bool is_old = first.find(':') == std::string::npos;
  if (!network || !bits || *bits > (is_old ? 32u : 128u)) return std::nullopt;
  if (is_old) *bits += 96;
  const auto address = address_of(host);
  if (!address) return false;
  for (std::size_t bit = 0; bit < *bits; ++bit) {
    const std::uint8_t mask = static_cast<std::uint8_t>(0x80 >> (bit % 8));
    if (((*address)[bit / 8] ^ (*network)[bit / 8]) & mask) return false;
  }
  return true;
}

std::string lowered(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char sign) { return static_cast<char>(std::tolower(sign)); });
  return text;
}

struct Endpoint {
  std::string host;
  std::string port;
};

/// HOST:PORT, [HOST]:PORT or HOST.
Endpoint parted(const std::string& text) {
  if (text.starts_with('[')) {
    const std::size_t end = std::min(text.find(']'), text.size());
    const std::string rest = end < text.size() ? text.substr(end + 1) : "";
    return {text.substr(1, end - 1), rest.starts_with(':') ? rest.substr(1) : ""};
  }
  const std::size_t colon = text.rfind(':');
  const bool is_address = std::count(text.begin(), text.end(), ':') > 1;
  if (colon == std::string::npos || is_address) return {text, ""};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

/// Of a target, the host as it is compared: without scheme, zone and dot at its end.
Endpoint endpoint_of(const std::string& target) {
  std::string rest = target;
  for (const std::string_view scheme : {"dns:", "ipv4:", "ipv6:"}) {
    if (!rest.starts_with(scheme)) continue;
    rest.erase(0, scheme.size());
    if (rest.starts_with("//")) rest.erase(0, std::min(rest.find('/', 2), rest.size() - 1) + 1);
  }
  Endpoint made = parted(rest);
  made.host = lowered(made.host.substr(0, made.host.find('%')));
  if (made.host.ends_with('.')) made.host.pop_back();
  return made;
}

bool is_socket(const std::string& target) {
  return target.starts_with("unix:") || target.starts_with("unix-abstract:") ||
         target.starts_with("vsock:");
}

bool names_several(const std::string& target) {
  return (target.starts_with("ipv4:") || target.starts_with("ipv6:")) &&
         target.find(',') != std::string::npos;
}

/// Whether a host is this one, or one of a private network, by its name alone.
bool is_local(const std::string& host) {
  if (address_of(host)) {
    return std::any_of(kLocalNetworks.begin(), kLocalNetworks.end(),
                       [&](std::string_view network) { return *is_in(host, network); });
  }
  const std::size_t dot = host.rfind('.');
  if (dot == std::string::npos || dot + 1 == host.size()) return true;
  if (std::isdigit(static_cast<unsigned char>(host[dot + 1])) != 0) return true;
  return std::any_of(kLocalSuffixes.begin(), kLocalSuffixes.end(),
                     [&](std::string_view suffix) { return host.ends_with(suffix); });
}

/// Whether an entry of no_proxy is for the host: an address, a block of them, or a name and all
/// under it, each perhaps with a port.
bool is_of(const Endpoint& endpoint, const std::string& entry) {
  if (entry == "*") return true;
  if (const auto within = is_in(endpoint.host, entry)) return *within;
  Endpoint wanted = parted(entry);
  if (!wanted.port.empty() && wanted.port != endpoint.port) return false;
  if (const auto address = address_of(wanted.host)) return address_of(endpoint.host) == address;
  std::string& name = wanted.host;
  if (name.starts_with('*')) name.erase(0, 1);
  if (name.starts_with('.')) name.erase(0, 1);
  return !name.empty() && (endpoint.host == name || endpoint.host.ends_with("." + name));
}

struct Variable {
  std::string name;
  std::string value;
};

Variable first_set(std::span<const char* const> names, const Environment& look) {
  for (const char* name : names) {
    if (const char* value = look(name)) return {name, value};
  }
  return {};
}

bool is_excepted(const Endpoint& endpoint, const Environment& look) {
  std::string list = lowered(first_set(kExceptions, look).value);
  std::replace_if(
      list.begin(), list.end(), [](char sign) { return sign == ',' || sign == '\t'; }, ' ');
  while (!list.empty()) {
    const std::size_t end = std::min(list.find(' '), list.size());
    if (end != 0 && is_of(endpoint, list.substr(0, end))) return true;
    list.erase(0, end + 1);
  }
  return false;
}

/// A proxy as gRPC takes it, and its name. None for a value that is not of the form
/// http://[USER:PASS@]HOST.
std::optional<Route> through(std::string value) {
  const bool has_odd_signs = std::any_of(value.begin(), value.end(),
                                         [](char sign) { return sign <= ' ' || sign > '~'; });
  if (has_odd_signs) return std::nullopt;
  if (value.find("://") == std::string::npos) value.insert(0, "http://");
  if (!lowered(value).starts_with("http://")) return std::nullopt;
  std::string rest = value.substr(7);
  if (rest.ends_with('/')) rest.pop_back();
  const std::size_t at = rest.rfind('@');
  const std::string user = at == std::string::npos ? "" : rest.substr(0, at + 1);
  const std::string host = at == std::string::npos ? rest : rest.substr(at + 1);
  if (host.empty() || rest.find_first_of("/?#\\") != std::string::npos) return std::nullopt;
  Endpoint endpoint = parted(host);
  if (endpoint.port.empty() && !host.ends_with(':')) endpoint.port = "80";
  const auto port = number_of(endpoint.port);
  if (endpoint.host.empty() || !port || *port < 1 || *port > 65'535) return std::nullopt;
  const bool is_address = endpoint.host.find(':') != std::string::npos;
  const std::string address =
      (is_address ? "[" + endpoint.host + "]" : endpoint.host) + ":" + endpoint.port;
  return Route{.proxy = "http://" + user + address, .proxy_name = "http://" + address};
}

[[noreturn]] void refuse(const std::string& what) {
  throw InvalidRequestError(what + " is not of the form http://[USER:PASS@]HOST[:PORT]");
}

}  // namespace

std::string Route::peer(const std::string& target) const {
  return proxy.empty() ? target : target + " through the proxy " + proxy_name;
}

Failure Route::told(Failure failure, const std::string& target) const {
  auto& metadata = failure.details.metadata;
  if (!metadata.contains("target")) return failure;
  if (!proxy.empty()) {
    metadata["target"] = target;
    metadata["proxy"] = proxy_name;
  } else if (!hint.empty() && failure.kind == ErrorClass::kUnavailable) {
    failure.message += "; " + hint +
                       " names a proxy, which was not used: set proxy to \"environment\" if this "
                       "server is reached through it";
  }
  return failure;
}

Route route_to(const std::string& target, const Options& options, const Environment& look) {
  std::optional<std::string> asked = options.proxy;
  const char* of_environment = look(kVariable);
  if (!asked && of_environment != nullptr && *of_environment != '\0') asked = of_environment;
  if (is_socket(target) || (asked && (asked->empty() || *asked == kNone))) return {};
  if (asked && names_several(target))
    throw InvalidRequestError("a proxy cannot be used for several addresses; name one server");
  const Endpoint endpoint = endpoint_of(target);
  if (is_excepted(endpoint, look)) return {};
  if (asked && *asked != kEnvironment) {
    if (auto route = through(*asked)) return *std::move(route);
    refuse("the proxy");
  }
  const Variable found = first_set(kProxies, look);
  if (found.value.empty()) return {};
  auto route = through(found.value);
  if (asked && !route) refuse("the proxy of " + found.name);
  const bool is_far =
      !options.tls_ca.empty() && !names_several(target) && !is_local(endpoint.host);
  if (asked || (route && is_far)) return *std::move(route);
  return {.hint = found.name};
}

}  // namespace transparent_llm::internal
