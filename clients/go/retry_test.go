package transparentllm_test

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

var background = context.Background()

type logitsCall = func(*pb.LogitsRequest, pb.TransparentLlmService_LogitsServer) error

// refusal is a status of the server's with details.
func refusal(code codes.Code, reason string, metadata map[string]string) error {
	return refusalFor(10*time.Millisecond, code, reason, metadata)
}

// refusalFor says when to try again.
func refusalFor(delay time.Duration, code codes.Code, reason string, metadata map[string]string) error {
	made, err := status.New(code, "the server says "+reason).WithDetails(
		&errdetails.ErrorInfo{Domain: "transparent-llm", Reason: reason, Metadata: metadata},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	if err != nil {
		panic(err)
	}
	return made.Err()
}

// begun is a client that has run something on the peer.
func begun(t *testing.T, p *peer, options ...transparentllm.Option) *transparentllm.Client {
	t.Helper()
	llm := dial(t, p.serve(t), options...)
	run(t, llm, "anything")
	return llm
}

func whole() *pb.TensorChunk {
	return &pb.TensorChunk{Header: logitsHead("x", 4), Data: []byte{1, 2, 3, 4}}
}

func TestAStreamIsTakenUpAgainWhateverInterruptedIt(t *testing.T) {
	first := &pb.TensorChunk{Header: logitsHead("x", 4), Data: []byte{1, 2}}
	rest := &pb.TensorChunk{Header: logitsHead("x", 4), Offset: 2, Data: []byte{3, 4}}
	for name, lost := range map[string]error{
		"unavailable":               status.Error(codes.Unavailable, "transport is closing"),
		"reset by a proxy":          status.Error(codes.Internal, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR"),
		"reset within a message":    status.Error(codes.Internal, "unexpected EOF"),
		"draining":                  refusal(codes.Unavailable, "DRAINING", nil),
		"cancelled by the server":   status.Error(codes.Canceled, "cancelled"),
		"the server starts again":   refusal(codes.Unavailable, "LOADING", nil),
		"the model is loaded again": refusal(codes.Unavailable, "LOADING", map[string]string{"model": "demo"}),
	} {
		p := &peer{logits: []logitsCall{sends(lost, first), sends(nil, rest)}}
		got, err := begun(t, p).Logits(background)
		if err != nil || string(got.Bytes()) != "\x01\x02\x03\x04" {
			t.Errorf("%s: %v, %v", name, got, err)
			continue
		}
		if options := p.asked[1].Options; options.ResumeOffset != 2 || options.Etag != "x" {
			t.Errorf("%s: asked for %v", name, options)
		}
	}
}

func TestAStreamWithAnotherEtagBeginsAnew(t *testing.T) {
	p := &peer{logits: []logitsCall{
		sends(status.Error(codes.Unavailable, "gone"), &pb.TensorChunk{Header: logitsHead("x", 4), Data: []byte{9, 9}}),
		sends(nil, &pb.TensorChunk{Header: logitsHead("y", 4), Data: []byte{1, 2, 3, 4}}),
	}}
	got, err := begun(t, p).Logits(background)
	if err != nil || string(got.Bytes()) != "\x01\x02\x03\x04" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAReaderEndsWhenTheBitsChangeInTheMiddle(t *testing.T) {
	p := &peer{logits: []logitsCall{
		sends(status.Error(codes.Unavailable, "gone"), &pb.TensorChunk{Header: logitsHead("x", 4), Data: []byte{9, 9}}),
		sends(nil, &pb.TensorChunk{Header: logitsHead("y", 4), Data: []byte{1, 2, 3, 4}}),
	}}
	reader := must(begun(t, p).Open(background, transparentllm.Logits()))(t)
	defer reader.Close()
	got, err := io.ReadAll(reader)
	if string(got) != "\x09\x09" || !errors.Is(err, transparentllm.ErrUnavailable) || !strings.Contains(err.Error(), "byte 2") {
		t.Errorf("%v, %v", got, err)
	}
	if _, again := reader.Read(make([]byte, 1)); again != err {
		t.Errorf("and then %v", again)
	}
}

func TestAReaderGoesOnInARunThatIsMadeAgain(t *testing.T) {
	p := &peer{logits: []logitsCall{
		sends(status.Error(codes.Unavailable, "gone"), &pb.TensorChunk{Header: logitsHead("x", 4), Data: []byte{1}}),
		sends(refusal(codes.NotFound, "RUN_NOT_FOUND", nil)),
		sends(nil, &pb.TensorChunk{Header: logitsHead("x", 4), Offset: 1, Data: []byte{2, 3, 4}}),
	}}
	reader := must(begun(t, p).Open(background, transparentllm.Logits()))(t)
	defer reader.Close()
	if got, err := io.ReadAll(reader); err != nil || string(got) != "\x01\x02\x03\x04" || p.runCalls != 2 {
		t.Errorf("%v, %v, after %d runs", got, err, p.runCalls)
	}
}

func TestALostRunIsMadeAgainThreeTimes(t *testing.T) {
	lost := sends(refusal(codes.NotFound, "RUN_NOT_FOUND", nil))
	p := &peer{logits: []logitsCall{lost, lost, lost, sends(nil, whole())}}
	if _, err := begun(t, p).Logits(background); err != nil || p.runCalls != 4 {
		t.Errorf("%v after %d runs", err, p.runCalls)
	}
	p = &peer{logits: []logitsCall{lost}}
	if _, err := begun(t, p).Logits(background); !errors.Is(err, transparentllm.ErrNotFound) || p.runCalls != 4 {
		t.Errorf("%v after %d runs", err, p.runCalls)
	}
	p = &peer{logits: []logitsCall{lost}}
	if _, err := begun(t, p, transparentllm.WithoutRerun()).Logits(background); !errors.Is(err, transparentllm.ErrNotFound) || p.runCalls != 1 {
		t.Errorf("%v after %d runs", err, p.runCalls)
	}
}

// interruptedAtZero sends a header, is interrupted before any byte, and then does something else.
func interruptedAtZero(head *pb.TensorHeader, end error, then ...*pb.TensorChunk) *peer {
	return &peer{logits: []logitsCall{sends(status.Error(codes.Unavailable, "gone"), &pb.TensorChunk{Header: head}), sends(end, then...)}}
}

func TestAStreamThatEndsAfterAnInterruptionBeforeItsFirstByte(t *testing.T) {
	if got, err := begun(t, interruptedAtZero(logitsHead("x", 4), nil)).Logits(background); !errors.Is(err, transparentllm.ErrInternal) {
		t.Errorf("%v, %v", got, err)
	}
	reader := must(begun(t, interruptedAtZero(logitsHead("x", 4), nil)).Open(background, transparentllm.Logits()))(t)
	defer reader.Close()
	if got, err := io.ReadAll(reader); !errors.Is(err, transparentllm.ErrInternal) {
		t.Errorf("as a stream: %v, %v", got, err)
	}
}

func TestAReaderThatIsInterruptedBeforeItsFirstByte(t *testing.T) {
	read := func(p *peer) ([]byte, error) {
		reader := must(begun(t, p).Open(background, transparentllm.Logits()))(t)
		defer reader.Close()
		return io.ReadAll(reader)
	}
	for _, etag := range []string{"x", "y"} { // of bits of which none were given out
		if got, err := read(interruptedAtZero(logitsHead("x", 4), nil, &pb.TensorChunk{Header: logitsHead(etag, 4), Data: []byte{1, 2, 3, 4}})); err != nil || len(got) != 4 {
			t.Errorf("%s: %v, %v", etag, got, err)
		}
	}
	longer := &pb.TensorChunk{Header: logitsHead("x", 6), Data: []byte{1, 2, 3, 4, 5, 6}}
	if got, err := read(interruptedAtZero(logitsHead("x", 4), nil, longer)); !errors.Is(err, transparentllm.ErrInternal) {
		t.Errorf("another tensor under the etag: %v, %v", got, err)
	}
	if got, err := read(&peer{logits: []logitsCall{sends(nil, &pb.TensorChunk{Header: logitsHead("x", 0)}, longer)}}); !errors.Is(err, transparentllm.ErrInternal) {
		t.Errorf("another tensor after an empty one: %v, %v", got, err)
	}
	longer.Header.Etag = "y"
	if got, err := read(interruptedAtZero(logitsHead("x", 4), nil, longer)); !errors.Is(err, transparentllm.ErrUnavailable) {
		t.Errorf("another tensor under another etag: %v, %v", got, err)
	}
}

func TestARunIsNotMadeAgainByAnotherModel(t *testing.T) {
	p := &peer{
		runs: []func() (*pb.RunResponse, error){
			func() (*pb.RunResponse, error) { return aRun("old"), nil },
			func() (*pb.RunResponse, error) { return aRun("new"), nil },
		},
		logits: []logitsCall{sends(refusal(codes.NotFound, "RUN_NOT_FOUND", nil))},
	}
	_, err := begun(t, p).Logits(background)
	var failed *transparentllm.Error
	if !errors.As(err, &failed) || failed.Reason != "MODEL_CHANGED" || failed.Metadata["was"] != digestOf("old") || failed.Metadata["is"] != digestOf("new") {
		t.Errorf("got %v", err)
	}
}

func TestACallWaitsForAModelThatIsLoaded(t *testing.T) {
	loading := refusal(codes.Unavailable, "LOADING", map[string]string{"model": "demo"})
	p := &peer{runs: []func() (*pb.RunResponse, error){
		func() (*pb.RunResponse, error) { return nil, loading },
		func() (*pb.RunResponse, error) { return nil, loading },
		func() (*pb.RunResponse, error) { return aRun("model"), nil },
	}}
	if begun(t, p); p.runCalls != 3 {
		t.Errorf("%d calls", p.runCalls)
	}
	tomorrow := refusalFor(24*time.Hour, codes.Unavailable, "LOADING", map[string]string{"model": "demo"})
	late := dial(t, (&peer{runs: []func() (*pb.RunResponse, error){func() (*pb.RunResponse, error) { return nil, tomorrow }}}).serve(t))
	var failed *transparentllm.Error
	if err := late.Run(background, []string{"x"}); !errors.As(err, &failed) || failed.Reason != "LOADING" {
		t.Errorf("in too little time: %v", err)
	}
}

func TestACallThatAServerEndsBeforeItBeginsIsMadeAgain(t *testing.T) {
	for name, lost := range map[string]error{
		"cancelled":   status.Error(codes.Canceled, "cancelled"),
		"draining":    refusal(codes.Unavailable, "DRAINING", nil),
		"unavailable": status.Error(codes.Unavailable, "gone"),
	} {
		p := &peer{
			runs: []func() (*pb.RunResponse, error){
				func() (*pb.RunResponse, error) { return aRun("model"), nil },
				func() (*pb.RunResponse, error) { return nil, lost },
				func() (*pb.RunResponse, error) { return aRun("model"), nil },
			},
			logits: []logitsCall{sends(lost), sends(nil, whole())},
		}
		llm := begun(t, p)
		run(t, llm, "once more")
		if _, err := llm.Logits(background); err != nil || p.runCalls != 3 || len(p.asked) != 2 {
			t.Errorf("%s: %v after %d runs and %d reads", name, err, p.runCalls, len(p.asked))
		}
	}
}

func TestWhatIsNotAskedAgain(t *testing.T) {
	for reason, code := range map[string]codes.Code{"OUT_OF_MEMORY": codes.ResourceExhausted, "INTERNAL": codes.Internal} {
		p := &peer{logits: []logitsCall{sends(refusal(code, reason, nil)), sends(nil, whole())}}
		var failed *transparentllm.Error
		if _, err := begun(t, p).Logits(background); !errors.As(err, &failed) || failed.Reason != reason || len(p.asked) != 1 {
			t.Errorf("%s: %v after %d calls", reason, err, len(p.asked))
		}
	}
	never := &peer{runs: []func() (*pb.RunResponse, error){func() (*pb.RunResponse, error) { return nil, status.Error(codes.Unavailable, "no") }}}
	llm := dial(t, never.serve(t))
	if err := llm.Run(background, []string{"x"}); !errors.Is(err, transparentllm.ErrUnavailable) || never.runCalls != 5 {
		t.Errorf("a server that never answered: %v after %d calls", err, never.runCalls)
	}
}

func TestAServerThatHasNoRoomIsAskedAgainWhenItSays(t *testing.T) {
	busy := func(delay time.Duration) error {
		made, err := status.New(codes.ResourceExhausted, "no room").WithDetails(&errdetails.ErrorInfo{Domain: "transparent-llm", Reason: "BUSY"},
			&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
		if err != nil {
			t.Fatal(err)
		}
		return made.Err()
	}
	p := &peer{logits: []logitsCall{sends(busy(20 * time.Millisecond)), sends(busy(20 * time.Millisecond)), sends(nil, whole())}}
	if _, err := begun(t, p).Logits(background); err != nil || len(p.asked) != 3 {
		t.Errorf("%v after %d calls", err, len(p.asked))
	}
	late := &peer{logits: []logitsCall{sends(busy(time.Hour)), sends(nil, whole())}}
	if _, err := begun(t, late).Logits(background); !errors.Is(err, transparentllm.ErrBusy) || len(late.asked) != 1 {
		t.Errorf("%v after %d calls", err, len(late.asked))
	}
}

// inEnoughTime makes a call with that timeout, and with longer ones if it was over before the server did its part.
func inEnoughTime(timeout time.Duration, call func(context.Context) error, isEnough func(error) bool) error {
	for ; ; timeout *= 2 {
		ctx, cancel := context.WithTimeout(background, timeout)
		err := call(ctx)
		cancel()
		if !errors.Is(err, transparentllm.ErrDeadline) || isEnough(err) || timeout > 30*time.Second {
			return err
		}
	}
}

func TestAServerThatWasLostIsWaitedForUntilTheDeadline(t *testing.T) {
	gone := status.Error(codes.Unavailable, "gone")
	p := &peer{logits: []logitsCall{func(request *pb.LogitsRequest, stream pb.TransparentLlmService_LogitsServer) error {
		if request.GetOptions().GetResumeOffset() > 0 {
			return gone
		}
		return sends(gone, &pb.TensorChunk{Header: logitsHead("x", 4), Data: []byte{9, 9}})(request, stream)
	}}}
	llm := begun(t, p)
	var failed *transparentllm.Error
	before, asked := 0, 0
	err := inEnoughTime(2*time.Second, func(ctx context.Context) error {
		before = p.timesAsked()
		_, err := llm.Logits(ctx)
		asked = p.timesAsked() - before
		return err
	}, func(err error) bool {
		return errors.As(err, &failed) && failed.Metadata["received"] == "2" && asked >= 3
	})
	if !errors.As(err, &failed) || failed.Class != transparentllm.ErrDeadline || failed.Metadata["received"] != "2" || failed.Metadata["total_bytes"] != "4" {
		t.Errorf("got %v", err)
	}
	if asked < 3 {
		t.Errorf("asked %d times", asked)
	}
	unary := begun(t, &peer{runs: []func() (*pb.RunResponse, error){
		func() (*pb.RunResponse, error) { return aRun("model"), nil },
		func() (*pb.RunResponse, error) { return nil, gone },
	}})
	err = inEnoughTime(time.Second, func(ctx context.Context) error { return unary.Run(ctx, []string{"x"}) },
		func(err error) bool { return strings.Contains(err.Error(), "gone") })
	if !errors.Is(err, transparentllm.ErrDeadline) || !strings.Contains(err.Error(), "gone") || strings.Contains(err.Error(), "byte") {
		t.Errorf("of a call without bytes: %v", err)
	}
}

// holds is a call that sends the beginning, waits until the client leaves, and says so.
func holds(left chan<- struct{}) logitsCall {
	return func(_ *pb.LogitsRequest, stream pb.TransparentLlmService_LogitsServer) error {
		if err := stream.Send(&pb.TensorChunk{Header: logitsHead("x", 4), Data: []byte{1}}); err != nil {
			return err
		}
		<-stream.Context().Done()
		left <- struct{}{}
		return status.FromContextError(stream.Context().Err()).Err()
	}
}

func TestCancellingEndsACallUnderWayAndTellsTheServer(t *testing.T) {
	left := make(chan struct{}, 100)
	var isWilling atomic.Bool
	llm := begun(t, &peer{logits: []logitsCall{func(request *pb.LogitsRequest, stream pb.TransparentLlmService_LogitsServer) error {
		if isWilling.Load() {
			return sends(nil, whole())(request, stream)
		}
		return holds(left)(request, stream)
	}}})
	ctx, cancel := context.WithCancel(background)
	_, err := llm.Logits(ctx, transparentllm.Progress(func(received, total int64) { cancel() }))
	if !errors.Is(err, transparentllm.ErrCancelled) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	<-left
	hasBegun := false
	err = inEnoughTime(time.Second, func(ctx context.Context) error {
		return second(llm.Logits(ctx, transparentllm.Progress(func(received, total int64) { hasBegun = true })))
	}, func(error) bool { return hasBegun })
	if !errors.Is(err, transparentllm.ErrDeadline) || !hasBegun {
		t.Errorf("too late: %v", err)
	}
	<-left
	reader := must(llm.Open(background, transparentllm.Logits()))(t)
	reader.Close()
	<-left
	isWilling.Store(true)
	must(llm.Logits(background))(t)
}

func TestClosingEndsCallsUnderWay(t *testing.T) {
	left := make(chan struct{}, 1)
	llm := begun(t, &peer{logits: []logitsCall{holds(left)}})
	_, err := llm.Logits(background, transparentllm.Progress(func(received, total int64) { llm.Close() }))
	if !errors.Is(err, transparentllm.ErrCancelled) {
		t.Errorf("got %v", err)
	}
	<-left
}

func TestClosingEndsCallsThatWait(t *testing.T) {
	loading := refusalFor(30*time.Second, codes.Unavailable, "LOADING", map[string]string{"model": "demo"})
	for name, call := range map[string]func(*transparentllm.Client) error{
		"Run":    func(llm *transparentllm.Client) error { return llm.Run(background, []string{"x"}) },
		"Logits": func(llm *transparentllm.Client) error { return second(llm.Logits(background)) },
	} {
		refused := make(chan struct{}, 100)
		refuse := func() error { refused <- struct{}{}; return loading }
		llm := begun(t, &peer{
			runs:   []func() (*pb.RunResponse, error){func() (*pb.RunResponse, error) { return aRun("model"), nil }, func() (*pb.RunResponse, error) { return nil, refuse() }},
			logits: []logitsCall{func(*pb.LogitsRequest, pb.TransparentLlmService_LogitsServer) error { return refuse() }},
		})
		go func() {
			<-refused
			time.Sleep(200 * time.Millisecond) // from then on it mostly waits
			llm.Close()
		}()
		start := time.Now()
		if err := call(llm); !errors.Is(err, transparentllm.ErrCancelled) || time.Since(start) > 20*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(start))
		}
	}
}

// begunInTime is a client whose calls have two seconds; that it has run something may have taken longer.
func begunInTime(t *testing.T, p *peer) *transparentllm.Client {
	t.Helper()
	llm := dial(t, p.serve(t), transparentllm.WithTimeout(2*time.Second))
	must(unlessLate(func() (any, error) { return nil, llm.Run(background, []string{"anything"}) }))(t)
	return llm
}

// unlessLate makes a call again that missed its deadline, as any does now and then where much else is at work.
func unlessLate[T any](call func() (T, error)) (T, error) {
	got, err := call()
	for tries := 0; tries < 10 && errors.Is(err, transparentllm.ErrDeadline); tries++ {
		got, err = call()
	}
	return got, err
}

func TestTheTimeoutIsThatOfTheCallAsAWhole(t *testing.T) {
	slow := func(_ *pb.LogitsRequest, _ pb.TransparentLlmService_LogitsServer) error {
		time.Sleep(1200 * time.Millisecond)
		return refusal(codes.NotFound, "RUN_NOT_FOUND", nil)
	}
	for name, call := range map[string]func(*transparentllm.Client) error{
		"a read": func(llm *transparentllm.Client) error { return second(llm.Logits(background)) },
		"Open":   func(llm *transparentllm.Client) error { return second(llm.Open(background, transparentllm.Logits())) },
	} {
		llm := begunInTime(t, &peer{logits: []logitsCall{slow}})
		if err := call(llm); !errors.Is(err, transparentllm.ErrDeadline) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := &peer{logits: []logitsCall{sends(refusal(codes.NotFound, "RUN_NOT_FOUND", nil), &pb.TensorChunk{Header: logitsHead("x", 4), Data: []byte{1}})},
		runs: []func() (*pb.RunResponse, error){
			func() (*pb.RunResponse, error) { return aRun("model"), nil },
			func() (*pb.RunResponse, error) { time.Sleep(1200 * time.Millisecond); return aRun("model"), nil },
		}}
	llm := begunInTime(t, p)
	reader := must(unlessLate(func() (*transparentllm.TensorReader, error) { return llm.Open(background, transparentllm.Logits()) }))(t)
	defer reader.Close()
	time.Sleep(1200 * time.Millisecond)
	if _, err := io.ReadAll(reader); !errors.Is(err, transparentllm.ErrDeadline) {
		t.Errorf("a reader: %v", err)
	}
}

func TestTLSWithoutAConfigurationIsTLS(t *testing.T) {
	p := &peer{}
	llm := dial(t, p.serve(t), transparentllm.WithTLS(nil), transparentllm.WithToken("secret"))
	if err := llm.Run(background, []string{"x"}); !errors.Is(err, transparentllm.ErrUnavailable) || p.runCalls != 0 {
		t.Errorf("%v after %d calls in the clear", err, p.runCalls)
	}
}

func TestStreamsThatBreakTheProtocolAreInternalErrors(t *testing.T) {
	second := &pb.TensorChunk{Header: logitsHead("x", 0)}
	other := &pb.TensorChunk{Header: &pb.TensorHeader{Name: "tokens", Dtype: pb.Dtype_DTYPE_F32, Etag: "x", TotalBytes: 4}, Data: make([]byte, 4)}
	factor := &pb.TensorChunk{Header: &pb.TensorHeader{Name: "logits.gain", Dtype: pb.Dtype_DTYPE_F32, Etag: "x", TotalBytes: 4}, Data: make([]byte, 4)}
	for name, call := range map[string]logitsCall{
		"nothing":         sends(nil),
		"too little":      sends(nil, &pb.TensorChunk{Header: logitsHead("x", 4), Data: []byte{1}}),
		"two":             sends(nil, whole(), second),
		"another's value": sends(nil, other),
		"a factor":        sends(nil, factor),
	} {
		llm := begun(t, &peer{logits: []logitsCall{call}})
		if got, err := llm.Logits(background); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		reader, err := llm.Open(background, transparentllm.Logits())
		if err == nil {
			_, err = io.ReadAll(reader)
			reader.Close()
		}
		if !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s, read as a stream: %v", name, err)
		}
	}
	llm := begun(t, &peer{logits: []logitsCall{sends(nil, whole())}})
	if _, err := llm.Logits(background, transparentllm.WireDtype(transparentllm.BF16)); !errors.Is(err, transparentllm.ErrInternal) {
		t.Errorf("another dtype than was asked for: %v", err)
	}
	for _, answer := range []*pb.RunResponse{
		{RunId: "run", BatchSize: 1, NPos: 2, TokenIds: []int32{7}},
		{RunId: "run", BatchSize: 1, NPos: 1, TokenIds: []int32{7}, Mask: []bool{true, true}},
		{RunId: "run", BatchSize: 0, NPos: math.MaxUint32},
	} {
		answer := answer
		wrong := &peer{runs: []func() (*pb.RunResponse, error){func() (*pb.RunResponse, error) { return answer, nil }}}
		if err := dial(t, wrong.serve(t)).Run(background, []string{"x"}); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("a run that contradicts itself: %v", err)
		}
	}
}

func TestHeadersWithoutEndEndACallAtOnce(t *testing.T) {
	empties := func(_ *pb.LogitsRequest, stream pb.TransparentLlmService_LogitsServer) error {
		for {
			if err := stream.Send(&pb.TensorChunk{Header: logitsHead("x", 0)}); err != nil {
				return err
			}
		}
	}
	llm := begun(t, &peer{logits: []logitsCall{empties}})
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	if _, err := llm.Logits(ctx); !errors.Is(err, transparentllm.ErrInternal) {
		t.Errorf("at once: %v", err)
	}
	reader := must(llm.Open(ctx, transparentllm.Logits()))(t)
	defer reader.Close()
	if _, err := io.ReadAll(reader); !errors.Is(err, transparentllm.ErrInternal) {
		t.Errorf("bit by bit: %v", err)
	}
}

func TestHeadersOfEveryCall(t *testing.T) {
	p := &peer{logits: []logitsCall{sends(nil, whole())}}
	target := p.serve(t)
	llm, other := dial(t, target, transparentllm.WithToken("secret")), dial(t, target)
	run(t, llm, "one")
	must(llm.Logits(background))(t)
	run(t, other, "one")
	run(t, other, "another")
	var keys []string
	for _, headers := range p.headers {
		keys = append(keys, strings.Join(headers.Get("x-transparent-llm-run-key"), "|"))
	}
	if keys[0] == "" || keys[0] != keys[1] || keys[0] != keys[2] || keys[0] == keys[3] {
		t.Errorf("run keys %v", keys)
	}
	if got := p.headers[1].Get("authorization"); len(got) != 1 || got[0] != "Bearer secret" {
		t.Errorf("authorization %v", got)
	}
	if got := p.headers[2].Get("authorization"); len(got) != 0 {
		t.Errorf("authorization without a token: %v", got)
	}
}
