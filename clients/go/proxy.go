package transparentllm

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Which proxy a connection goes through, by the rule of docs/PROTOCOL.md, "Proxies". gRPC's own look at the environment is
// off: it would hand prompts and tokens for a server of this host to a proxy.

const (
	proxyVariable    = "TRANSPARENT_LLM_PROXY"
	noProxy          = "none"
	environmentProxy = "environment"
	// mostConnectAnswer is more bytes than a proxy needs to say yes.
	mostConnectAnswer = 16 << 10
)

var (
	proxyVariables   = []string{"grpc_proxy", "GRPC_PROXY", "https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"}
	noProxyVariables = []string{"no_grpc_proxy", "NO_GRPC_PROXY", "no_proxy", "NO_PROXY"}
	localSuffixes    = []string{".localhost", ".local", ".localdomain", ".internal", ".intranet", ".private", ".corp", ".home", ".lan",
		".svc", ".test", ".home.arpa"}
	localNetworks = prefixes("127.0.0.0/8", "::1/128", "0.0.0.0/8", "::/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
		"100.64.0.0/10", "169.254.0.0/16", "fe80::/10", "fc00::/7")
	schemeOfTarget = regexp.MustCompile(`^(?:dns|passthrough):(?://[^/]*/)?`)
)

// route is how a connection reaches its target.
type route struct {
	proxy    *url.URL // nil: directly
	endpoint string   // HOST:PORT behind a proxy
	hint     string   // the variable that names a proxy which is not used though nobody said so; else empty
}

// environ looks a variable up, and says whether it is set.
type environ func(name string) (string, bool)

// routeTo decides. Errors: ErrInvalidRequest for a setting that names no proxy, or one that cannot be used for the target.
func routeTo(config config, look environ) (route, error) {
	setting, isAsked := config.proxy, config.hasProxy
	if !isAsked {
		setting, _ = look(proxyVariable)
		isAsked = setting != ""
	}
	isNever := isAsked && (setting == "" || setting == noProxy)
	if isNever || isSocket(config.target) {
		return route{}, nil
	}
	isMany := strings.HasPrefix(config.target, "ipv4:") || strings.HasPrefix(config.target, "ipv6:")
	if isAsked && isMany {
		return route{}, failure(ErrInvalidRequest, "a proxy cannot be used for several addresses; name one server")
	}
	endpoint := schemeOfTarget.ReplaceAllString(config.target, "")
	host, port := hostAndPort(endpoint)
	if isExcepted(host, port, look) {
		return route{}, nil
	}
	if isAsked && setting != environmentProxy {
		proxy, err := proxyOf(setting)
		if err != nil {
			return route{}, failure(ErrInvalidRequest, "the proxy is not of the form http://HOST:PORT: %v", err)
		}
		return route{proxy: proxy, endpoint: endpoint}, nil
	}
	variable, value := firstSet(proxyVariables, look)
	if value == "" {
		return route{}, nil
	}
	proxy, err := proxyOf(value)
	switch {
	case isAsked && err != nil:
		return route{}, failure(ErrInvalidRequest, "the proxy of %s is not of the form http://HOST:PORT: %v", variable, err)
	case isAsked || (err == nil && config.tls != nil && !isMany && !isLocal(host)):
		return route{proxy: proxy, endpoint: endpoint}, nil
	}
	return route{hint: variable}, nil
}

func firstSet(variables []string, look environ) (name, value string) {
	for _, name := range variables {
		if value, isSet := look(name); isSet {
			return name, value
		}
	}
	return "", ""
}

func isSocket(target string) bool {
	return strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") || strings.HasPrefix(target, "vsock:")
}

// hostAndPort of a target without its scheme, the host as it is compared: in small letters, without brackets, zone and
// dot at its end.
func hostAndPort(endpoint string) (host, port string) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		host, port = strings.Trim(endpoint, "[]"), ""
	}
	host, _, _ = strings.Cut(host, "%")
	return strings.ToLower(strings.TrimSuffix(host, ".")), port
}

// proxyOf reads http://[USER:PASS@]HOST[:PORT]. Its errors never have the password in them.
func proxyOf(value string) (*url.URL, error) {
	if strings.ContainsAny(value, " \t\r\n") || !isPrintable(value) {
		return nil, fmt.Errorf("it has spaces or control characters in it")
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	made, err := url.Parse(value)
	switch {
	case err != nil:
		return nil, fmt.Errorf("it is not a URL")
	case made.Scheme != "http":
		return nil, fmt.Errorf("%s proxies are not supported", made.Scheme)
	case made.Hostname() == "" || (made.Path != "" && made.Path != "/") || made.RawQuery != "" || made.Fragment != "":
		return nil, fmt.Errorf("it has no host, or more than a host")
	}
	port := made.Port()
	if port == "" {
		port = "80"
	}
	if number, err := strconv.Atoi(port); err != nil || number < 1 || number > 65535 {
		return nil, fmt.Errorf("it has the port %q", port)
	}
	return &url.URL{Scheme: "http", User: made.User, Host: net.JoinHostPort(made.Hostname(), port)}, nil
}

// isLocal tells whether a host is this one, or one of a private network, by its name alone.
func isLocal(host string) bool {
	if address, err := netip.ParseAddr(host); err == nil {
		return contained(address, localNetworks)
	}
	last := host[strings.LastIndex(host, ".")+1:]
	if !strings.Contains(host, ".") || last == "" || (last[0] >= '0' && last[0] <= '9') {
		return true
	}
	for _, suffix := range localSuffixes {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

// isExcepted tells whether the environment says that no proxy is used for the host.
func isExcepted(host, port string, look environ) bool {
	_, list := firstSet(noProxyVariables, look)
	entries := strings.FieldsFunc(list, func(sign rune) bool { return strings.ContainsRune(", \t\r\n", sign) })
	for _, entry := range entries {
		if entry == "*" || isOf(host, port, strings.ToLower(entry)) {
			return true
		}
	}
	return false
}

// isOf tells whether an entry of no_proxy is for the host: an address, a block of them, or a name and all under it, each
// perhaps with a port.
func isOf(host, port, entry string) bool {
	if block, err := netip.ParsePrefix(entry); err == nil {
		address, err := netip.ParseAddr(host)
		return err == nil && contained(address, []netip.Prefix{block})
	}
	name, wanted := entry, ""
	if _, err := netip.ParseAddr(strings.Trim(entry, "[]")); err != nil {
		if before, after, err := net.SplitHostPort(entry); err == nil {
			name, wanted = before, after
		}
	}
	if wanted != "" && wanted != port {
		return false
	}
	name = strings.Trim(strings.TrimPrefix(strings.TrimPrefix(name, "*"), "."), "[]")
	if one, err := netip.ParseAddr(name); err == nil {
		address, err := netip.ParseAddr(host)
		return err == nil && address.Unmap() == one.Unmap()
	}
	return name != "" && (host == name || strings.HasSuffix(host, "."+name))
}

func contained(address netip.Addr, networks []netip.Prefix) bool {
	for _, network := range networks {
		if network.Contains(address.Unmap()) {
			return true
		}
	}
	return false
}

func prefixes(texts ...string) []netip.Prefix {
	made := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		made[i] = netip.MustParsePrefix(text)
	}
	return made
}

// dial is gRPC's dialer: directly, or by a tunnel through the proxy.
func (r route) dial(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{}
	if strings.HasPrefix(address, "unix:") || strings.HasPrefix(address, "\x00") {
		path := strings.TrimPrefix(address, "unix:")
		return dialer.DialContext(ctx, "unix", strings.TrimPrefix(path, "//"))
	}
	if r.proxy == nil {
		return dialer.DialContext(ctx, "tcp", address)
	}
	conn, err := dialer.DialContext(ctx, "tcp", r.proxy.Host)
	if err != nil {
		return nil, err
	}
	if err := r.tunnel(ctx, conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// tunnel asks the proxy for a connection to the endpoint.
func (r route) tunnel(ctx context.Context, conn net.Conn) error {
	deadline := time.Now().Add(longestConnect)
	if until, ok := ctx.Deadline(); ok && until.Before(deadline) {
		deadline = until
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	asked := "CONNECT " + r.endpoint + " HTTP/1.1\r\nHost: " + r.endpoint + "\r\n"
	if user := r.proxy.User; user != nil {
		password, _ := user.Password()
		asked += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(conn, asked+"\r\n"); err != nil {
		return err
	}
	answer, err := headOf(conn)
	if err != nil {
		return fmt.Errorf("the proxy did not answer: %w", err)
	}
	words := strings.Fields(answer)
	if len(words) < 2 || !strings.HasPrefix(words[0], "HTTP/1.") || words[1] != "200" {
		status, _, _ := strings.Cut(answer, "\r\n")
		return fmt.Errorf("the proxy refused: %.100q", status)
	}
	return conn.SetDeadline(time.Time{})
}

// headOf reads up to the empty line, and nothing of what comes after it.
func headOf(conn io.Reader) (string, error) {
	head, next := []byte{}, make([]byte, 1)
	for !strings.HasSuffix(string(head), "\r\n\r\n") {
		if len(head) == mostConnectAnswer {
			return "", fmt.Errorf("more than %d bytes without an end", len(head))
		}
		if _, err := io.ReadFull(conn, next); err != nil {
			return "", err
		}
		head = append(head, next[0])
	}
	return string(head), nil
}

// peer is what lies at the other end, for messages.
func (r route) peer(target string) string {
	if r.proxy == nil {
		return target
	}
	return target + " through the proxy " + r.name()
}

// name of the proxy, without its user.
func (r route) name() string { return "http://" + r.proxy.Host }

// told adds what is to be known of the proxy to an error in which the server did not speak.
func (r route) told(failed *Error, target string) *Error {
	if _, silent := failed.Metadata["target"]; !silent {
		return failed
	}
	if r.proxy != nil {
		failed.Metadata["target"], failed.Metadata["proxy"] = target, r.name()
	} else if r.hint != "" && failed.Class == ErrUnavailable {
		failed.Message += "; " + r.hint + ` names a proxy, which was not used: WithProxy("environment") if this server is reached through it`
	}
	return failed
}
