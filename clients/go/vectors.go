package transparentllm

import (
	"math"
	"unicode/utf8"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// deepest is the most differences within differences that a server takes.
const deepest = 8

// Vector is as wide as the site that it is used at: numbers that are sent, or what is found where the model is, which
// needs no upload.
type Vector struct {
	make  func(*sources) (*pb.Vector, error)
	depth int
}

// Literal is these numbers [d]. They are copied.
func Literal(values []float32) Vector { return LiteralOf(NewVector(values)) }

// LiteralOf is a floating tensor [d], or [n d] with a row for each selected position. Its elements are copied.
func LiteralOf(values *Tensor) Vector {
	if err := checkLiteral(values); err != nil {
		return Vector{make: func(*sources) (*pb.Vector, error) { return nil, err }}
	}
	sent := &pb.Tensor{Dtype: pb.Dtype(values.dtype), Data: append([]byte(nil), values.data...)}
	for _, length := range values.shape {
		sent.Shape = append(sent.Shape, uint64(length))
	}
	return fixed(&pb.Vector{Source: &pb.Vector_Literal{Literal: sent}}, nil)
}

// ValueOf is what the current run of source has at a site, at one position of one row: a steering vector from another sentence.
func ValueOf(site Site, source *Client, row, pos int) Vector {
	return Vector{make: func(from *sources) (*pb.Vector, error) {
		if err := site.check(); err != nil {
			return nil, err
		}
		numbers, err := indices("row or pos", []int{row, pos})
		if err != nil {
			return nil, err
		}
		id, err := from.id(source)
		value := &pb.RunValue{RunId: id, Site: site.wire, Row: numbers[0], Pos: numbers[1]}
		return &pb.Vector{Source: &pb.Vector_Value{Value: value}}, err
	}}
}

// Unembedding is the column of the unembedding for a token [d_model]: the direction that its logit reads.
func Unembedding(token int) Vector {
	number, err := index("token", token)
	return fixed(&pb.Vector{Source: &pb.Vector_Unembedding{Unembedding: number}}, err)
}

// NeuronOutput is what a neuron writes [d_model].
func NeuronOutput(layer, neuron int) Vector {
	numbers, err := indices("layer or neuron", []int{layer, neuron})
	if err != nil {
		return fixed(nil, err)
	}
	written := &pb.NeuronVector{Layer: numbers[0], Neuron: numbers[1]}
	return fixed(&pb.Vector{Source: &pb.Vector_NeuronOutput{NeuronOutput: written}}, nil)
}

// SaeFeature is what a feature of a sparse autoencoder of the model writes: its row of the decoder, as wide as the site of the
// sparse autoencoder, of a transcoder that of its output. A negative feature counts from the end.
func SaeFeature(sae string, feature int) Vector {
	return featureOf(sae, feature, pb.FeatureDirection_FEATURE_DIRECTION_DECODER)
}

// SaeEncoder is what a feature of a sparse autoencoder reads: its column of the encoder, as wide as its site.
func SaeEncoder(sae string, feature int) Vector {
	return featureOf(sae, feature, pb.FeatureDirection_FEATURE_DIRECTION_ENCODER)
}

func featureOf(sae string, feature int, direction pb.FeatureDirection) Vector {
	number, err := index("feature", feature)
	sent := &pb.SaeFeatureVector{Sae: sae, Feature: number, Direction: direction}
	return fixed(&pb.Vector{Source: &pb.Vector_SaeFeature{SaeFeature: sent}}, first(checkSAE(sae), err))
}

// checkSAE refuses what cannot be the name of a sparse autoencoder.
func checkSAE(name string) error {
	if name == "" || !utf8.ValidString(name) {
		return failure(ErrInvalidRequest, "%s is not the name of a sparse autoencoder; ServerInfo has those of each model", quoted(name))
	}
	return nil
}

// Minus is the vector less another.
func (v Vector) Minus(other Vector) Vector {
	depth := 1 + v.depth
	if other.depth >= depth {
		depth = 1 + other.depth
	}
	if depth > deepest {
		return Vector{depth: depth, make: func(*sources) (*pb.Vector, error) {
			return nil, failure(ErrInvalidRequest, "a vector is %d differences deep, at most %d can be", depth, deepest)
		}}
	}
	return Vector{depth: depth, make: func(from *sources) (*pb.Vector, error) {
		minuend, err := v.on(from)
		if err != nil {
			return nil, err
		}
		subtrahend, err := other.on(from)
		difference := &pb.VectorDifference{Minuend: minuend, Subtrahend: subtrahend}
		return &pb.Vector{Source: &pb.Vector_Difference{Difference: difference}}, err
	}}
}

// on is the message of it, with the runs that it takes from.
func (v Vector) on(from *sources) (*pb.Vector, error) {
	if v.make == nil {
		return nil, failure(ErrInvalidRequest, "a vector of an edit is absent: make one with Literal, Unembedding or another function")
	}
	return v.make(from)
}

func fixed(vector *pb.Vector, err error) Vector {
	return Vector{make: func(*sources) (*pb.Vector, error) { return vector, err }}
}

// checkLiteral refuses what is no vector, nor a matrix with one for each position; and what is not finite.
func checkLiteral(values *Tensor) error {
	if values == nil {
		return failure(ErrInvalidRequest, "a vector is floating numbers [d], or [n d] with a row for each position, got nil")
	}
	if axes := len(values.shape); axes < 1 || axes > 2 || values.Len() == 0 || !values.dtype.IsFloating() {
		return failure(ErrInvalidRequest, "a vector is floating numbers [d], or [n d] with a row for each position, got %v of "+
			"shape %v", values.dtype, values.shape)
	}
	for i, count := 0, values.Len(); i < count; i++ {
		if value, _ := values.float64(i); math.IsNaN(value) || math.IsInf(value, 0) {
			return failure(ErrInvalidRequest, "a vector has elements that are not finite: the first is element %d", i)
		}
	}
	return nil
}
