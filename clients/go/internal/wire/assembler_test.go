package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// value is the header of six bytes.
func value(etag string) *pb.TensorHeader {
	return &pb.TensorHeader{Name: "value", Dtype: pb.Dtype_DTYPE_U8, Shape: []uint64{2, 3}, Dims: []string{"a", "b"},
		TotalBytes: 6, Etag: etag}
}

func second(etag string) *pb.TensorHeader {
	return &pb.TensorHeader{Name: "second", Dtype: pb.Dtype_DTYPE_I16, Shape: []uint64{1}, Dims: []string{"a"},
		TotalBytes: 2, Etag: etag}
}

func scalar(etag string) *pb.TensorHeader {
	return &pb.TensorHeader{Name: "scalar", Dtype: pb.Dtype_DTYPE_BF16, TotalBytes: 2, Etag: etag}
}

func empty(etag string) *pb.TensorHeader {
	return &pb.TensorHeader{Name: "empty", Dtype: pb.Dtype_DTYPE_F32, Shape: []uint64{0}, Dims: []string{"a"}, Etag: etag}
}

func chunk(head *pb.TensorHeader, offset uint64, data ...byte) *pb.TensorChunk {
	return &pb.TensorChunk{Header: head, Offset: offset, Data: data}
}

var interruption = &pb.TensorChunk{} // stands for the end of a connection

func assembled(chunks []*pb.TensorChunk, maxBytes uint64) (string, error) {
	assembler := NewAssembler(maxBytes)
	for _, message := range chunks {
		if message == interruption {
			assembler.Interrupted()
			continue
		}
		if err := assembler.Add(message); err != nil {
			return "", err
		}
	}
	tensors, err := assembler.Tensors()
	said := ""
	for _, tensor := range tensors {
		said += fmt.Sprintf("%s%v ", tensor.Header.Name, tensor.Data)
	}
	return said, err
}

func TestStreamsThatFollowTheProtocol(t *testing.T) {
	for name, c := range map[string]struct {
		chunks []*pb.TensorChunk
		wanted string
	}{
		"one message":                {[]*pb.TensorChunk{chunk(value("x"), 0, 1, 2, 3, 4, 5, 6)}, "value[1 2 3 4 5 6] "},
		"header alone":               {[]*pb.TensorChunk{chunk(value("x"), 0), chunk(nil, 0, 1, 2), chunk(nil, 2), chunk(nil, 2, 3, 4, 5, 6)}, "value[1 2 3 4 5 6] "},
		"scalar and empty":           {[]*pb.TensorChunk{chunk(scalar("x"), 0, 1, 2), chunk(empty("x"), 0), chunk(second("x"), 0, 3, 4)}, "scalar[1 2] empty[] second[3 4] "},
		"only an empty one":          {[]*pb.TensorChunk{chunk(empty("x"), 0)}, "empty[] "},
		"taken up":                   {[]*pb.TensorChunk{chunk(value("x"), 0, 1, 2), interruption, chunk(value("x"), 2, 3, 4, 5, 6)}, "value[1 2 3 4 5 6] "},
		"taken up at its end":        {[]*pb.TensorChunk{chunk(value("x"), 0, 1, 2, 3, 4, 5, 6), interruption, chunk(value("x"), 6)}, "value[1 2 3 4 5 6] "},
		"etag changed":               {[]*pb.TensorChunk{chunk(value("x"), 0, 1, 2), interruption, chunk(value("y"), 0, 6, 5, 4, 3, 2, 1)}, "value[6 5 4 3 2 1] "},
		"interrupted in the second":  {[]*pb.TensorChunk{chunk(value("x"), 0, 1, 2, 3, 4, 5, 6), chunk(second("x"), 0, 7), interruption, chunk(second("x"), 1, 8)}, "value[1 2 3 4 5 6] second[7 8] "},
		"interrupted between two":    {[]*pb.TensorChunk{chunk(value("x"), 0, 1, 2, 3, 4, 5, 6), chunk(second("x"), 0), interruption, chunk(second("x"), 0, 7, 8)}, "value[1 2 3 4 5 6] second[7 8] "},
		"interrupted after an empty": {[]*pb.TensorChunk{chunk(empty("x"), 0), chunk(second("x"), 0), interruption, chunk(empty("x"), 0), chunk(second("x"), 0, 7, 8)}, "empty[] second[7 8] "},
		"interrupted before all":     {[]*pb.TensorChunk{interruption, chunk(second("x"), 0, 7, 8)}, "second[7 8] "},
		"changed, several":           {[]*pb.TensorChunk{chunk(value("x"), 0, 1, 2, 3, 4, 5, 6), chunk(second("x"), 0, 7), interruption, chunk(value("y"), 0, 6, 5, 4, 3, 2, 1), chunk(second("y"), 0, 8, 7)}, "value[6 5 4 3 2 1] second[8 7] "},
	} {
		got, err := assembled(c.chunks, 0)
		if err != nil || got != c.wanted {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestStreamsThatBreakTheProtocol(t *testing.T) {
	with := func(change func(*pb.TensorHeader)) *pb.TensorHeader {
		head := value("x")
		change(head)
		return head
	}
	for name, chunks := range map[string][]*pb.TensorChunk{
		"nothing":                       {},
		"no header":                     {chunk(nil, 0, 1)},
		"a gap":                         {chunk(value("x"), 0, 1), chunk(nil, 2, 3)},
		"a step back":                   {chunk(value("x"), 0, 1, 2), chunk(nil, 1, 2)},
		"surplus":                       {chunk(second("x"), 0, 1, 2, 3)},
		"surplus after the end":         {chunk(second("x"), 0, 1, 2), chunk(nil, 2, 3)},
		"an early end":                  {chunk(value("x"), 0, 1, 2)},
		"an early next":                 {chunk(value("x"), 0, 1, 2), chunk(second("x"), 0, 1, 2)},
		"an offset at first":            {chunk(value("x"), 2, 1, 2)},
		"another etag, no interruption": {chunk(value("x"), 0, 1, 2, 3, 4, 5, 6), chunk(second("y"), 0, 1, 2)},
		"no header after a break":       {chunk(value("x"), 0, 1, 2), interruption, chunk(nil, 2, 3, 4, 5, 6)},
		"another after an interruption": {chunk(value("x"), 0, 1, 2), interruption, chunk(with(func(h *pb.TensorHeader) { h.Shape = []uint64{3, 2} }), 2, 3)},
		"begun again, same etag":        {chunk(value("x"), 0, 1, 2), interruption, chunk(value("x"), 0, 1, 2, 3, 4, 5, 6)},
		"a gap after an interruption":   {chunk(value("x"), 0, 1, 2), interruption, chunk(value("x"), 3, 4, 5, 6)},
		"nothing after an interruption": {chunk(value("x"), 0), interruption},
		"too few bytes":                 {chunk(with(func(h *pb.TensorHeader) { h.TotalBytes = 5 }), 0)},
		"too few dims":                  {chunk(with(func(h *pb.TensorHeader) { h.Dims = h.Dims[:1] }), 0)},
		"no dtype":                      {chunk(with(func(h *pb.TensorHeader) { h.Dtype = 0 }), 0)},
		"a dtype of tomorrow":           {chunk(with(func(h *pb.TensorHeader) { h.Dtype = 77 }), 0)},
		"an overflow to 6": {chunk(with(func(h *pb.TensorHeader) {
			h.Shape = []uint64{6, 1<<63 + 1, 2}
			h.Dims = append(h.Dims, "c")
			h.TotalBytes = 12
		}), 0)},
		"an axis past 63 bits": {chunk(with(func(h *pb.TensorHeader) { h.Shape = []uint64{0, math.MaxUint64}; h.TotalBytes = 0 }), 0)},
		"more axes than any value": {chunk(with(func(h *pb.TensorHeader) {
			h.Shape, h.Dims, h.TotalBytes = make([]uint64, 9), make([]string, 9), 0
		}), 0)},
		"axes without end": {chunk(with(func(h *pb.TensorHeader) {
			h.Shape, h.Dims, h.TotalBytes = lengths(120_000, 1<<63), make([]string, 120_000), 0
		}), 0)},
		"an empty tensor that no memory spans": {chunk(with(func(h *pb.TensorHeader) {
			h.Shape = []uint64{0, 1 << 47, 2}
			h.Dims = append(h.Dims, "c")
			h.TotalBytes = 0
		}), 0)},
		"more than a process can address": {chunk(with(func(h *pb.TensorHeader) { h.Shape = []uint64{1 << 47, 2}; h.TotalBytes = 1 << 48 }), 0)},
		"a name of megabytes":             {chunk(with(func(h *pb.TensorHeader) { h.Name = strings.Repeat("x", 4<<20) }), 0)},
		"an axis of megabytes":            {chunk(with(func(h *pb.TensorHeader) { h.Dims[1] = strings.Repeat("x", 4<<20) }), 0)},
		"an etag of megabytes":            {chunk(with(func(h *pb.TensorHeader) { h.Etag = strings.Repeat("x", 4<<20) }), 0)},
		"an offset near 2^64":             {chunk(value("x"), math.MaxUint64, 1, 2)},
		"an offset that overflows":        {chunk(value("x"), 0, 1, 2), chunk(nil, math.MaxUint64-1, 3, 4)},
		"a stride past 63 bits": {chunk(with(func(h *pb.TensorHeader) {
			h.Shape = []uint64{0, 1 << 40, 1 << 40}
			h.Dims = append(h.Dims, "c")
			h.TotalBytes = 0
		}), 0)},
		"much, and then nothing": {chunk(with(func(h *pb.TensorHeader) { h.Shape = []uint64{1 << 31, 1 << 31}; h.TotalBytes = 1 << 62 }), 0, 1)},
		"shared memory":          {{Header: value("x"), Shared: &pb.SharedPiece{Size: 6}}},
	} {
		got, err := assembled(chunks, 0)
		var stream *StreamError
		if !errors.As(err, &stream) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func lengths(count int, length uint64) []uint64 {
	made := make([]uint64, count)
	for i := range made {
		made[i] = length
	}
	return made
}

func TestWhatIsSaidOfALiarIsShort(t *testing.T) {
	for _, head := range []*pb.TensorHeader{
		{Name: strings.Repeat("\x1b[2J", 1<<20)},
		{Name: "value", Dims: []string{strings.Repeat("\x1b[2J", 1<<20)}, Shape: []uint64{1}},
		{Name: "value", Shape: lengths(1<<20, 1<<63), Dims: make([]string, 1<<20)},
		{Name: "\x1b[2J", Dims: []string{"\x1b]0;x\a"}, Shape: []uint64{1}, Dtype: pb.Dtype_DTYPE_F32, TotalBytes: 9},
	} {
		_, err := assembled([]*pb.TensorChunk{chunk(head, 0)}, 0)
		if err == nil || len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\x1b\a") {
			t.Errorf("%.1000q", fmt.Sprint(err))
		}
	}
}

func TestATensorThatNobodyAskedForIsRefusedByItsHeader(t *testing.T) {
	assembler, refusal := NewAssembler(0), errors.New("not asked for")
	assembler.Check = func(*pb.TensorHeader) error { return refusal }
	if err := assembler.Add(chunk(value("x"), 0)); err != refusal {
		t.Errorf("got %v", err)
	}
}

func TestALargerTensorThanAllowedIsRefusedByItsHeader(t *testing.T) {
	_, err := assembled([]*pb.TensorChunk{chunk(value("x"), 0)}, 5)
	var large *TooLargeError
	if !errors.As(err, &large) || large.Needed != 6 || large.Allowed != 5 {
		t.Errorf("got %v", err)
	}
	if got, err := assembled([]*pb.TensorChunk{chunk(value("x"), 0, 1, 2, 3, 4, 5, 6)}, 6); err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWhatIsAskedForAfterAnInterruption(t *testing.T) {
	assembler := NewAssembler(0)
	asked := func() string { assembler.Interrupted(); return fmt.Sprint(assembler.Received, " ", assembler.Etag()) }
	if got := asked(); got != "0 " {
		t.Errorf("of nothing %q", got)
	}
	for _, message := range []*pb.TensorChunk{chunk(value("x"), 0, 1, 2, 3, 4, 5, 6), chunk(second("x"), 0, 7)} {
		if err := assembler.Add(message); err != nil {
			t.Fatal(err)
		}
	}
	if got := asked(); got != "7 x" {
		t.Errorf("in the second tensor %q", got)
	}
}

func TestMemoryGrowsWithTheBytesButNotPastTheAnnounced(t *testing.T) {
	held := &Tensor{Header: &pb.TensorHeader{TotalBytes: 10}, Data: make([]byte, 3, 3)}
	copy(held.Data, []byte{1, 2, 3})
	for _, wanted := range []int{6, 10} {
		more := cap(held.Data) - len(held.Data) + 1
		held.Data = append(grown(held, more), make([]byte, more)...)
		if cap(held.Data) != wanted || !bytes.Equal(held.Data[:3], []byte{1, 2, 3}) {
			t.Errorf("%d bytes of room, not %d: %v", cap(held.Data), wanted, held.Data)
		}
	}
}
