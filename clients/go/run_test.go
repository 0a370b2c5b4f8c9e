package transparentllm

import (
	"testing"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

func TestTheRoutingKeyIsThatOfEveryLanguage(t *testing.T) {
	sentences := func(model string, sentences ...string) *pb.RunRequest {
		return asked(t)(sentencesRequest(model, sentences))
	}
	tokens := func(model string, rows ...[]int64) *pb.RunRequest { return asked(t)(tokensRequest(model, rows)) }
	for _, c := range []struct {
		request *pb.RunRequest
		want    string
	}{
		{sentences("", "My lord, the king of France is dead"), "e0ecca658ae862b5f227d59699dd1529"},
		{sentences("demo", "My lord"), "772583d45b6fbfa9c9c1fff0c085c2da"},
		{sentences("", "Ä 𝕏 \"\\\n", ""), "7d4c8dec3527b914ef839ef8df9ef0a3"},
		{tokens("demo", []int64{0, 1023, 2147483647}, nil), "128e08778faa0cd0736b3b391424f3ac"},
		{tokens("ü"), "fe5a0e475e182f6350c5bfddc7a45d4e"},
	} {
		if got := runKey(c.request); got != c.want {
			t.Errorf("%v: %s, not %s", c.request, got, c.want)
		}
	}
}

func asked(t *testing.T) func(*pb.RunRequest, error) *pb.RunRequest {
	return func(request *pb.RunRequest, err error) *pb.RunRequest {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return request
	}
}
