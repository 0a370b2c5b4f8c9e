package wire

import (
	"encoding/binary"
	"testing"

	"google.golang.org/protobuf/proto"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// fuzzBytes is the most that a tensor may take while it is fuzzed.
const fuzzBytes = 1 << 20

// FuzzAssembler puts together what comes of a stream: messages of a length in two bytes each; one of no length is an interruption.
func FuzzAssembler(f *testing.F) {
	for _, chunks := range [][]*pb.TensorChunk{
		{chunk(value("x"), 0, 1, 2, 3), nil, chunk(value("x"), 3, 4, 5, 6)},
		{chunk(empty("x"), 0), chunk(second("x"), 0, 1), nil, chunk(second("y"), 0, 1, 2)},
		{chunk(scalar("x"), 0, 1, 2)},
	} {
		f.Add(written(f, chunks))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		assembler := NewAssembler(fuzzBytes)
		assembler.Most = 4
		for len(data) >= 2 {
			length := int(binary.LittleEndian.Uint16(data))
			data = data[2:]
			if length == 0 {
				assembler.Interrupted()
				continue
			}
			message := &pb.TensorChunk{}
			if length > len(data) || proto.Unmarshal(data[:length], message) != nil {
				return
			}
			data = data[length:]
			if assembler.Add(message) != nil {
				return
			}
			if assembler.Received > assembler.Total || len(assembler.held) > 4 {
				t.Fatalf("%d of %d bytes of %d tensors", assembler.Received, assembler.Total, len(assembler.held))
			}
		}
		tensors, err := assembler.Tensors()
		for _, tensor := range tensors {
			needed, ok := ByteCount(tensor.Header.Dtype, tensor.Header.Shape)
			if err == nil && (!ok || needed != uint64(len(tensor.Data)) || needed > fuzzBytes) {
				t.Fatalf("%d bytes of %v", len(tensor.Data), tensor.Header)
			}
		}
	})
}

func written(f *testing.F, chunks []*pb.TensorChunk) []byte {
	var data []byte
	for _, chunk := range chunks {
		message, err := proto.Marshal(chunk)
		if err != nil {
			f.Fatal(err)
		}
		if chunk == nil {
			message = nil
		}
		data = append(binary.LittleEndian.AppendUint16(data, uint16(len(message))), message...)
	}
	return data
}
