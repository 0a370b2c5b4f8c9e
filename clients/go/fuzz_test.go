package transparentllm

import (
	"context"
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"transparentllm.dev/go/internal/wire"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// FuzzStatus makes errors of statuses.
func FuzzStatus(f *testing.F) {
	f.Add(uint32(14), "no", []byte("\x08\x0e\x12\x01x"))
	f.Add(uint32(math.MaxUint32), "\x1b[2J\xff", []byte(nil))
	f.Fuzz(func(t *testing.T, code uint32, message string, details []byte) {
		failed := FromError(wire.StatusError(codes.Code(code), message, details), "here")
		if failed == nil {
			return // OK is no error
		}
		words := failed.Error() + failed.Reason
		for key, value := range failed.Metadata {
			words += key + value
		}
		if strings.IndexFunc(words, isObeyed) >= 0 || failed.Class == nil || len(failed.Metadata) > mostEntries {
			t.Fatalf("%q %v", words, failed)
		}
		if delay, said := failed.RetryAfter(); said && (delay < 0 || delay > longestDelay) {
			t.Fatalf("to try again after %v", delay)
		}
	})
}

// FuzzRun takes answers to Run.
func FuzzRun(f *testing.F) {
	request := &pb.RunRequest{Input: &pb.RunRequest_Sentences{Sentences: &pb.SentenceBatch{Sentences: []string{"one", "two"}}}}
	seed, err := proto.Marshal(&pb.RunResponse{RunId: "run", BatchSize: 2, NPos: 1, TokenIds: []int32{1, 2}, ModelDigest: strings.Repeat("0", 64)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		answer := &pb.RunResponse{}
		if proto.Unmarshal(data, answer) != nil {
			return
		}
		made, err := answeredRun(request, "key", answer)
		if err == nil && (made.tokens.shape[0] != 2 || made.tokens.Len() != 2*made.tokens.shape[1] || !isDigest(made.digest)) {
			t.Fatalf("%v", made)
		}
	})
}

// FuzzHeader holds headers against what was asked.
func FuzzHeader(f *testing.F) {
	ofRun := &run{tokens: &Tensor{I64, []int{2, 3}, nil, nil}}
	known := expected{}
	for _, m := range methods {
		known.add(&expectation{method: m, reading: &reading{}, run: ofRun, factored: true, model: &pb.ModelDescription{DFfn: []uint32{5}}})
	}
	seed, err := proto.Marshal(&pb.TensorHeader{Name: "decomposed_attn.pattern", Dtype: pb.Dtype_DTYPE_F32, Shape: []uint64{1, 3, 3},
		Dims: []string{"head", "target", "source"}, TotalBytes: 36})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	withoutLengths, err := proto.Marshal(&pb.TensorHeader{Name: "residual_in", Dtype: pb.Dtype_DTYPE_F32, Dims: []string{"batch", "pos", "d_model"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(withoutLengths)
	f.Fuzz(func(t *testing.T, data []byte) {
		head := &pb.TensorHeader{}
		if proto.Unmarshal(data, head) == nil {
			known.check(head)
		}
	})
}

// FuzzFactors multiplies factors of small shapes that need not fit together.
func FuzzFactors(f *testing.F) {
	f.Add([]byte{9, 2, 1, 2, 9, 2, 2, 3, 0, 9, 0, 2, 5, 5, 1, 2, 3, 4})
	f.Add([]byte{8, 3, 9, 9, 9, 6, 2, 2, 0, 1, 3, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		source := &bytesOf{data}
		first, offered, gain, spans := source.tensor(), source.tensor(), source.tensor(), source.tensor()
		attn := arrival{"pattern": first, "value_out": offered}
		ffn := arrival{"activations": first}
		if source.next()&1 == 1 {
			attn["gain"], ffn["gain"] = gain, gain
		}
		if source.next()&1 == 1 {
			ffn["spans"] = spans
		}
		for _, multiply := range []func() (*Tensor, error){
			func() (*Tensor, error) { return attnProduct(context.Background(), attn, 1<<16) },
			func() (*Tensor, error) {
				if len(offered.shape) != 2 || !offered.dtype.IsFloating() {
					return nil, ErrInternal // as the header of output vectors is held against the model
				}
				return ffnProduct(context.Background(), ffn, offered, 1<<16)
			},
		} {
			product, err := multiply()
			if err == nil && wire.Product(product.dtype.Size(), product.shape) != uint64(len(product.data)) {
				t.Fatalf("%d bytes of %v", len(product.data), product.shape)
			}
		}
	})
}

// bytesOf makes tensors of bytes.
type bytesOf struct{ left []byte }

func (b *bytesOf) next() byte {
	if len(b.left) == 0 {
		return 0
	}
	first := b.left[0]
	b.left = b.left[1:]
	return first
}

// tensor has up to four axes of up to six elements; I64 have small numbers.
func (b *bytesOf) tensor() *Tensor {
	made := &Tensor{dtype: Dtype(b.next()%10) + BOOL}
	for axes := b.next() % 5; axes > 0; axes-- {
		made.shape = append(made.shape, int(b.next()%7))
	}
	made.data = make([]byte, wire.Product(made.dtype.Size(), made.shape))
	for i := 0; i < len(made.data); i += made.dtype.Size() {
		made.data[i] = b.next()
	}
	return made
}
