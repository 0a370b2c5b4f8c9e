package transparentllm

import (
	"context"
	"hash/fnv"
	"os"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// mostServers of one client.
const mostServers = 1024

// server is one address, and the connection to it.
type server struct {
	target string
	route  route
	conn   *grpc.ClientConn
	isLost atomic.Bool // whether the last that was heard of it is that it could not be reached
}

// servers are those of one client: of the same models, so that any can answer any call. Each run lives on one of them.
type servers []*server

func dialledServers(config config) (servers, error) {
	var made servers
	for _, target := range config.targets {
		one, err := dialledServer(config, target)
		if err != nil {
			_ = made.close()
			return nil, err
		}
		made = append(made, one)
	}
	return made, nil
}

func dialledServer(config config, target string) (*server, error) {
	security := grpc.WithInsecure() // the only name that gRPC 1.33 has for it
	if config.tls != nil {
		security = grpc.WithTransportCredentials(credentials.NewTLS(config.tls))
	}
	config.target = target
	route, err := routeTo(config, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	dialled := target
	if route.proxy != nil {
		dialled = "passthrough:///" + route.endpoint // so that the proxy resolves the name
	}
	conn, err := grpc.Dial(dialled, security,
		grpc.WithNoProxy(),
		grpc.WithContextDialer(route.dial),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithUserAgent("transparent-llm-go/"+Version),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveAfter, Timeout: keepaliveAfter}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 2, Jitter: 0.2, MaxDelay: longestPause},
			MinConnectTimeout: longestConnect,
		}))
	if err != nil {
		return nil, failure(ErrInvalidRequest, "%s is not a target: %v", target, err)
	}
	return &server{target: target, route: route, conn: conn}, nil
}

// of is the server for a routing key: of those that are there the one whose name and the key have the largest hash
// (rendezvous hashing), so that a server that comes or goes moves no run but its own.
func (s servers) of(key string) *server {
	var best, away *server
	var most, mostAway uint64
	for _, one := range s {
		score := scoreOf(key, one.target)
		if one.isThere() {
			if best == nil || score > most {
				best, most = one, score
			}
		} else if away == nil || score > mostAway {
			away, mostAway = one, score
		}
	}
	if best == nil {
		return away
	}
	return best
}

func scoreOf(key, target string) uint64 {
	sum := fnv.New64a()
	sum.Write([]byte(target + "\x00" + key)) // a hash.Hash never fails
	mixed := sum.Sum64()
	for _, shift := range []uint{33, 29, 32} { // as FNV alone hardly mixes its last bytes into the upper bits
		mixed ^= mixed >> shift
		mixed *= 0xff51afd7ed558ccd
	}
	return mixed
}

// isThere tells whether a call can be made to it: not, if it was lost and there is no connection to it again.
func (s *server) isThere() bool {
	if !s.isLost.Load() {
		return true
	}
	state := s.conn.GetState()
	if state != connectivity.Ready && state != connectivity.Idle {
		return false
	}
	s.isLost.Store(false)
	return true
}

// failed gives our error for gRPC's.
func (s *server) failed(err error) *Error {
	made := s.route.told(FromError(err, s.route.peer(s.target)), s.target)
	if made.Reason == "UNAVAILABLE" {
		s.isLost.Store(true)
	}
	return made
}

// peer is all of them, for messages.
func (s servers) peer() string {
	names := make([]string, len(s))
	for i, one := range s {
		names[i] = one.route.peer(one.target)
	}
	return strings.Join(names, ", ")
}

// reconnect has the next attempts to connect made now, where the last ones failed. If no server is there it waits for one a little.
func (s servers) reconnect(ctx context.Context) {
	for _, one := range s {
		one.conn.ResetConnectBackoff()
	}
	if len(s) > 1 {
		for _, one := range s {
			if one.isThere() {
				return
			}
		}
	}
	if len(s) > 0 {
		ctx, cancel := context.WithTimeout(ctx, reconnectWait)
		defer cancel()
		s[0].conn.WaitForStateChange(ctx, connectivity.TransientFailure)
	}
}

func (s servers) close() error {
	var first error
	for _, one := range s {
		if err := one.conn.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
