package transparentllm_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	transparentllm "transparentllm.dev/go"
)

// second server of the same model, in a process of its own.
func otherAddress(t *testing.T) string {
	t.Helper()
	python := os.Getenv("PYTHON")
	if python == "" {
		t.Skip("no server: PYTHON is not set")
	}
	servers.Lock()
	defer servers.Unlock()
	if servers.address["other"] == "" {
		servers.address["other"] = start(t, python, "other", "--dtype", "float32")
	}
	return servers.address["other"]
}

func TestEachRunLivesOnOneOfSeveralServers(t *testing.T) {
	first, second := newGate(t, address(t, "float32")), newGate(t, otherAddress(t))
	llm := must(transparentllm.DialAll([]string{first.address, second.address}, transparentllm.WithTimeout(time.Minute),
		transparentllm.WithCacheBytes(0), transparentllm.WithoutRerun()))(t)
	t.Cleanup(func() { llm.Close() })
	var copies []*client
	for i := int64(0); i < 12; i++ {
		each := llm.Copy()
		if err := each.RunTokens(background, [][]int64{{1, i}}); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, each)
	}
	for _, each := range copies { // each is where its run is, or it would not be found
		must(each.ResidualOut(background, 0))(t)
	}
	for _, gate := range []*gate{first, second} {
		if gate.carried() < 1<<11 {
			t.Errorf("one of the servers sent only %d bytes: all runs are on the other", gate.carried())
		}
	}
	if !must(llm.IsServing(background))(t) {
		t.Error("the servers do not serve")
	}
}

func TestARunIsMadeAgainOnAnotherServer(t *testing.T) {
	first, second := newGate(t, address(t, "float32")), newGate(t, otherAddress(t))
	llm := must(transparentllm.DialAll([]string{first.address, second.address}, transparentllm.WithTimeout(time.Minute),
		transparentllm.WithCacheBytes(0)))(t)
	t.Cleanup(func() { llm.Close() })
	var copies []*client
	before := map[*client]string{}
	for i := int64(0); i < 8; i++ {
		each := llm.Copy()
		if err := each.RunTokens(background, [][]int64{{7, i}}); err != nil {
			t.Fatal(err)
		}
		copies, before[each] = append(copies, each), string(must(each.Logits(background))(t).Bytes())
	}
	second.close()
	for _, each := range copies {
		if got, err := each.Logits(background); err != nil || string(got.Bytes()) != before[each] {
			t.Errorf("after a server was lost: %v", err)
		}
	}
	if !must(llm.IsServing(background))(t) {
		t.Error("the server that is left does not serve")
	}
	if err := llm.RunTokens(background, [][]int64{{5, 6}}); err != nil {
		t.Error(err)
	}
}

func TestServersThatMakeNoSense(t *testing.T) {
	for _, targets := range [][]string{nil, {""}, {"here:1", "here:1"}, {"here", "here:50051"}, {"a:1", "http://b"}, make([]string, 1025)} {
		if _, err := transparentllm.DialAll(targets); !errors.Is(err, transparentllm.ErrInvalidRequest) {
			t.Errorf("%d targets: %v", len(targets), err)
		}
	}
	if _, err := transparentllm.Dial("here:1", transparentllm.WithReconnect(-1)); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("a wait of less than nothing: %v", err)
	}
}

func TestALostServerIsWaitedForAsLongAsItIsTold(t *testing.T) {
	gate := newGate(t, address(t, "float32"))
	llm := dial(t, gate.address, transparentllm.WithReconnect(200*time.Millisecond))
	run(t, llm, "My lord")
	gate.close()
	begun := time.Now()
	err := second(llm.Logits(background))
	if took := time.Since(begun); !errors.Is(err, transparentllm.ErrUnavailable) || took > 20*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	if !strings.Contains(fmt.Sprint(err), gate.address) {
		t.Errorf("the message does not say which server: %v", err)
	}
}
