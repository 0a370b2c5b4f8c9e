package transparentllm

import (
	"crypto/tls"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	defaultTimeout      = 300 * time.Second
	defaultReconnect    = 30 * time.Second
	defaultWeightsBytes = 1 << 30
	defaultCacheBytes   = 1 << 29
)

type config struct {
	target       string   // for messages, all of them
	targets      []string // of servers
	token        string
	tls          *tls.Config
	model        string
	timeout      time.Duration
	reconnect    time.Duration
	rerun        bool
	maxBytes     int64
	weightsBytes int64
	cacheBytes   int64
	proxy        string
	hasProxy     bool
}

// hostAlone is a name or an IPv4 address, or an IPv6 address in brackets.
var hostAlone = regexp.MustCompile(`^([^:/\[\]%,]+|\[[^/\[\]]+\])$`)

// Option is one of what Dial can be told.
type Option func(*config)

// WithToken sends a bearer token with every call.
func WithToken(token string) Option { return func(c *config) { c.token = token } }

// WithTLS uses TLS: the configuration's RootCAs are trusted and its Certificates shown; nil trusts the authorities of the
// system. Default: no TLS.
func WithTLS(security *tls.Config) Option {
	if security == nil {
		security = &tls.Config{}
	}
	return func(c *config) { c.tls = security }
}

// WithModel names the model, which is needed only where several are served.
func WithModel(name string) Option { return func(c *config) { c.model = name } }

// WithTimeout bounds each call as a whole, transfer included, where its context has no earlier deadline. Default: 300 s.
func WithTimeout(timeout time.Duration) Option { return func(c *config) { c.timeout = timeout } }

// WithReconnect is how long a call waits without progress for a server that had answered before and was lost, within its time. 0: not
// at all. Default: 30 s.
func WithReconnect(wait time.Duration) Option { return func(c *config) { c.reconnect = wait } }

// WithoutRerun returns ErrNotFound, RUN_NOT_FOUND, when the server no longer has the run. Default: the input is run again
// and the value read again, up to three times.
func WithoutRerun() Option { return func(c *config) { c.rerun = false } }

// WithMaxBytes is the most that one value may take; a larger one returns ErrTooLarge before its memory is taken. Default:
// half of the memory of this machine, or of its container; 4 GiB where it cannot be told how much that is.
func WithMaxBytes(bytes int64) Option {
	return func(c *config) { c.maxBytes = bytes }
}

// WithProxy says which proxy the connection goes through: "http://[USER:PASS@]HOST[:PORT]"; "environment" for that of
// https_proxy and its kin; "none" or "" for never one. Default: TRANSPARENT_LLM_PROXY, which has the same values; without it
// the environment's, but only with TLS and never to this host or a private network. What no_proxy names is reached
// directly, and so are unix sockets.
func WithProxy(proxy string) Option {
	return func(c *config) { c.proxy, c.hasProxy = proxy, true }
}

// WithWeightsBytes limits the output vectors of neurons that are kept for DecomposedFfnOut, for a client and its copies
// together. A layer that takes more than all of it is not kept: its products come ready from the server. Default: 1 GiB.
func WithWeightsBytes(bytes int64) Option { return func(c *config) { c.weightsBytes = bytes } }

// WithCacheBytes limits the tensors of current runs that are kept, for a client and its copies together, so that what is asked for
// twice is sent once. One that takes more than a quarter of it is not kept. 0: none is. Default: 512 MiB. What a read returned
// belongs to its caller all the same, who may write to it.
func WithCacheBytes(bytes int64) Option { return func(c *config) { c.cacheBytes = bytes } }

func configured(targets []string, options []Option) (config, error) {
	made := config{target: strings.Join(targets, ", "), timeout: defaultTimeout, reconnect: defaultReconnect, rerun: true,
		weightsBytes: defaultWeightsBytes, cacheBytes: defaultCacheBytes, maxBytes: halfOfMemory()}
	for _, option := range options {
		option(&made)
	}
	if err := made.reach(targets); err != nil {
		return made, err
	}
	switch {
	case !utf8.ValidString(made.model):
		return made, failure(ErrInvalidRequest, "WithModel(%q): it is not valid UTF-8", made.model)
	case !isPrintable(made.token):
		return made, failure(ErrInvalidRequest,
			"the token contains characters that cannot be sent in a header: perhaps a trailing line break, or non-ASCII letters")
	case made.maxBytes < 1:
		return made, failure(ErrInvalidRequest, "WithMaxBytes(%d): it must be 1 or more", made.maxBytes)
	case made.reconnect < 0:
		return made, failure(ErrInvalidRequest, "WithReconnect(%v): it must be 0 or more", made.reconnect)
	case made.timeout <= 0:
		return made, failure(ErrInvalidRequest, "WithTimeout(%v): it must be more than 0", made.timeout)
	}
	return made, nil
}

// reach notes the targets, each of which is another one.
func (c *config) reach(targets []string) error {
	if len(targets) == 0 || len(targets) > mostServers {
		return failure(ErrInvalidRequest, "a client has 1 to %d servers, got %d", mostServers, len(targets))
	}
	seen := map[string]bool{}
	for _, target := range targets {
		whole := completed(target)
		switch {
		case target == "":
			return failure(ErrInvalidRequest, "Dial needs a target: HOST:PORT")
		case strings.HasPrefix(target, "http://") || strings.HasPrefix(target, "https://"):
			return failure(ErrInvalidRequest, "%q is a URL, not a target: write HOST:PORT, and WithTLS for TLS", target)
		case seen[whole]:
			return failure(ErrInvalidRequest, "%q is named twice: name each server once", target)
		}
		seen[whole] = true
		c.targets = append(c.targets, whole)
	}
	c.target = strings.Join(c.targets, ", ")
	return nil
}

// completed is a target with the usual port, where it is a host without one: gRPC's own default is 443.
func completed(target string) string {
	if hostAlone.MatchString(target) {
		return target + ":50051"
	}
	return target
}

func isPrintable(token string) bool {
	for i := 0; i < len(token); i++ {
		if token[i] < ' ' || token[i] > '~' {
			return false
		}
	}
	return true
}
