package transparentllm_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// recorder is an HTTP proxy that keeps what it is asked, and makes tunnels unless it is told to answer something else.
type recorder struct {
	listener net.Listener
	answer   string
	mutex    sync.Mutex
	asked    []string
	users    []string
}

func recording(t *testing.T, answer string) *recorder {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	made := &recorder{listener: listener, answer: answer}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go made.tunnel(conn)
		}
	}()
	return made
}

func (r *recorder) url() string { return "http://" + r.listener.Addr().String() }

func (r *recorder) heard() string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return strings.Join(r.asked, " ")
}

func (r *recorder) tunnel(conn net.Conn) {
	defer conn.Close()
	reader := bufio.NewReader(conn)
	request, err := http.ReadRequest(reader)
	r.mutex.Lock()
	if err != nil {
		r.asked = append(r.asked, err.Error())
	} else {
		r.asked, r.users = append(r.asked, request.Method+" "+request.Host), append(r.users, request.Header.Get("Proxy-Authorization"))
	}
	r.mutex.Unlock()
	if r.answer != "" || err != nil {
		io.WriteString(conn, r.answer)
		return
	}
	server, err := net.Dial("tcp", request.Host)
	if err != nil {
		return
	}
	defer server.Close()
	io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	go io.Copy(server, reader)
	io.Copy(conn, server)
}

func throughEveryVariable(t *testing.T, url string) {
	t.Helper()
	for _, name := range []string{"grpc_proxy", "https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "GRPC_ADDRESS_HTTP_PROXY"} {
		t.Setenv(name, url)
	}
	for _, name := range []string{"no_grpc_proxy", "NO_GRPC_PROXY", "no_proxy", "NO_PROXY"} {
		t.Setenv(name, "")
	}
	t.Setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.0/8")
}

func TestCallsToThisHostGoThroughNoProxy(t *testing.T) {
	proxy := recording(t, "")
	throughEveryVariable(t, proxy.url())
	p := &peer{}
	llm := dial(t, p.serve(t))
	run(t, llm, "a secret")
	if heard := proxy.heard(); heard != "" {
		t.Errorf("the proxy heard %s", heard)
	}
}

func TestAProxyThatWasAskedForIsUsed(t *testing.T) {
	proxy := recording(t, "")
	throughEveryVariable(t, proxy.url())
	target := (&peer{}).serve(t)
	run(t, dial(t, target, transparentllm.WithProxy("environment")), "anything")
	run(t, dial(t, target, transparentllm.WithProxy(strings.Replace(proxy.url(), "//", "//me:pass%20word@", 1))), "anything")
	if heard := proxy.heard(); heard != "CONNECT "+target+" CONNECT "+target {
		t.Errorf("the proxy heard %s", heard)
	}
	if got := proxy.users[1]; got != "Basic bWU6cGFzcyB3b3Jk" {
		t.Errorf("it was shown %s", got)
	}
}

func TestAnErrorNamesTheProxy(t *testing.T) {
	for name, answer := range map[string]string{
		"refused": "HTTP/1.1 407 \x1b[2J\r\n\r\n",
		"nothing": "\x00",
		"no end":  "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 1<<16),
	} {
		proxy := recording(t, answer)
		url := strings.Replace(proxy.url(), "//", "//me:word@", 1)
		err := dial(t, "127.0.0.1:9", transparentllm.WithProxy(url)).Run(background, []string{"x"})
		var failed *transparentllm.Error
		if !errors.As(err, &failed) || failed.Class != transparentllm.ErrUnavailable || failed.Metadata["proxy"] != proxy.url() ||
			failed.Metadata["target"] != "127.0.0.1:9" || !strings.Contains(failed.Message, "through the proxy "+proxy.url()) ||
			strings.Contains(failed.Message, "word") || strings.Contains(failed.Message, "\x1b") {
			t.Errorf("%s: %v, %v", name, err, failed)
		}
	}
}

func TestAnErrorSaysThatAProxyWasNotUsed(t *testing.T) {
	proxy := recording(t, "")
	throughEveryVariable(t, proxy.url())
	err := dial(t, "127.0.0.1:9").Run(background, []string{"x"})
	if !errors.Is(err, transparentllm.ErrUnavailable) || !strings.Contains(err.Error(), "grpc_proxy names a proxy, which was not used") {
		t.Errorf("got %v", err)
	}
	if heard := proxy.heard(); heard != "" {
		t.Errorf("the proxy heard %s", heard)
	}
}

func TestAUnixSocket(t *testing.T) {
	path := t.TempDir() + "/socket"
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterTransparentLlmServiceServer(server, &peer{})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	for _, target := range []string{"unix:" + path, "unix://" + path} {
		run(t, dial(t, target), "anything")
	}
}
