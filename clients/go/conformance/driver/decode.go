package main

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	"transparentllm.dev/go/internal/wire"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// decode puts together what came of one stream, in as many pieces as there are.
func decode(asked *request) (any, error) {
	assembler, resumes := wire.NewAssembler(asked.MaxBytes), []fields{}
	for number, messages := range asked.Streams {
		if number > 0 {
			assembler.Interrupted()
			resumes = append(resumes, fields{"offset": assembler.Received, "etag": assembler.Etag()})
		}
		for _, message := range messages {
			chunk := &pb.TensorChunk{}
			if err := proto.Unmarshal(message, chunk); err != nil {
				return nil, transparentllm.FromError(&wire.StreamError{What: err.Error()}, "the stream")
			}
			if err := assembler.Add(chunk); err != nil {
				return nil, transparentllm.FromError(err, "the stream")
			}
		}
	}
	arrived, err := assembler.Tensors()
	if err != nil {
		return nil, transparentllm.FromError(err, "the stream")
	}
	all := []fields{}
	for _, held := range arrived {
		made, err := assembled(held)
		if err != nil {
			return nil, err
		}
		all = append(all, made)
	}
	return fields{"tensors": all, "resumes": resumes}, nil
}

func assembled(held wire.Tensor) (fields, error) {
	shape := make([]int, len(held.Header.Shape))
	for axis, length := range held.Header.Shape {
		shape[axis] = int(length)
	}
	value, err := transparentllm.NewTensor(transparentllm.Dtype(held.Header.Dtype), shape, held.Data)
	if err != nil {
		return nil, err
	}
	made, err := encoded(value)
	if err != nil {
		return nil, err
	}
	made["name"], made["dims"] = held.Header.Name, append([]string{}, held.Header.Dims...)
	return made, nil
}

// decodeError makes the error of a call that ended with such a status.
func decodeError(asked *request) (any, error) {
	failed := transparentllm.FromError(wire.StatusError(codes.Code(asked.Code), asked.Message, asked.Details), "the target")
	if failed == nil {
		return nil, errors.New("this status is no error")
	}
	return fields{"error": described(failed)}, nil
}
