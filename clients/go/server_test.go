package transparentllm_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	transparentllm "transparentllm.dev/go"
)

// servers are processes of the real server on the embedded model, by its dtype or another name; each is started when a test first needs it.
var servers = struct {
	sync.Mutex
	started map[string]*exec.Cmd
	address map[string]string
}{started: map[string]*exec.Cmd{}, address: map[string]string{}}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, server := range servers.started {
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	os.Exit(code)
}

// address of a real server: TRANSPARENT_LLM_ADDRESS, or one that PYTHON starts. Without either the test is skipped.
func address(t *testing.T, dtype string) string {
	t.Helper()
	given, python := os.Getenv("TRANSPARENT_LLM_ADDRESS"), os.Getenv("PYTHON")
	if given != "" && dtype == "float32" {
		return given
	}
	if python == "" {
		t.Skip("no server: neither TRANSPARENT_LLM_ADDRESS nor PYTHON is set")
	}
	servers.Lock()
	defer servers.Unlock()
	if servers.address[dtype] == "" {
		servers.address[dtype] = start(t, python, dtype, "--dtype", dtype)
	}
	return servers.address[dtype]
}

// start starts a server, which is known by a name, with these flags beside its address.
func start(t *testing.T, python, name string, flags ...string) string {
	t.Helper()
	flags = append([]string{"-m", "transparent_llm", "serve", "--listen", "127.0.0.1:0"}, flags...)
	server := exec.Command(python, flags...)
	server.Stderr = os.Stderr
	output, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	servers.started[name] = server
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if _, address, ready := strings.Cut(lines.Text(), "ready: "); ready {
			go func() {
				for lines.Scan() {
				}
			}()
			return address
		}
	}
	t.Fatal("the server ended before it was ready")
	return ""
}

// dial makes a client that is closed with the test. It keeps no values, so that each read is a call.
func dial(t *testing.T, target string, options ...transparentllm.Option) *transparentllm.Client {
	t.Helper()
	llm, err := transparentllm.Dial(target, append([]transparentllm.Option{transparentllm.WithTimeout(time.Minute),
		transparentllm.WithCacheBytes(0)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { llm.Close() })
	return llm
}

// ran is a client of a real server with a current run.
func ran(t *testing.T, options ...transparentllm.Option) *transparentllm.Client {
	t.Helper()
	llm := dial(t, address(t, "float32"), options...)
	run(t, llm, "My lord, the king of France is dead", "What say you?")
	return llm
}

func run(t *testing.T, llm *transparentllm.Client, sentences ...string) {
	t.Helper()
	if err := llm.Run(context.Background(), sentences); err != nil {
		t.Fatal(err)
	}
}

// must gives what a call answered, which must have gone well.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
