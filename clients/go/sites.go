package transparentllm

import (
	"fmt"
	"math"
	"strings"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// Site is a tensor of one layer, on the way from tokens to logits, where a run can be changed. A negative layer counts from
// the end. The functions that begin with At make one.
type Site struct {
	wire *pb.Site
	err  error
}

// AtResidualIn is the residual stream as it enters a block [pos d_model]; that of layer 0 is the embedding.
func AtResidualIn(layer int) Site { return siteOf(pb.SiteKind_SITE_KIND_RESIDUAL_IN, layer) }

// AtResidualAfterAttn is the residual stream between attention and feed-forward part [pos d_model]. Blocks that compute both
// side by side have none.
func AtResidualAfterAttn(layer int) Site {
	return siteOf(pb.SiteKind_SITE_KIND_RESIDUAL_AFTER_ATTN, layer)
}

// AtResidualOut is the residual stream as it leaves a block [pos d_model]: the same tensor as AtResidualIn of the next.
func AtResidualOut(layer int) Site { return siteOf(pb.SiteKind_SITE_KIND_RESIDUAL_OUT, layer) }

// AtAttnOut is what attention adds to the residual stream [pos d_model], with its bias, any norm after it and multiplier.
func AtAttnOut(layer int) Site { return siteOf(pb.SiteKind_SITE_KIND_ATTN_OUT, layer) }

// AtFfnOut is what the feed-forward part adds to the residual stream [pos d_model], with bias, norm and multiplier.
func AtFfnOut(layer int) Site { return siteOf(pb.SiteKind_SITE_KIND_FFN_OUT, layer) }

// AtHead is what a query head has mixed of the values [pos d_head], before its output weights.
func AtHead(layer, head int) Site { return siteOf(pb.SiteKind_SITE_KIND_HEAD, layer).ofHead(head) }

// AtPattern is the attention probabilities of a query head after the softmax [query_pos key_pos]. Positions of an edit are
// queries. What a query may not see stays 0; rows need not sum to 1 afterwards.
func AtPattern(layer, head int) Site {
	return siteOf(pb.SiteKind_SITE_KIND_PATTERN, layer).ofHead(head)
}

// AtQuery is the query of a query head as it is multiplied with keys [pos d_head]: after rotary embeddings, norms and factors.
func AtQuery(layer, head int) Site { return siteOf(pb.SiteKind_SITE_KIND_QUERY, layer).ofHead(head) }

// AtKey is a key as queries are multiplied with it [pos d_head]; the head is one of those that query heads share.
func AtKey(layer, head int) Site { return siteOf(pb.SiteKind_SITE_KIND_KEY, layer).ofHead(head) }

// AtValue is a value, which patterns mix [pos d_head]; the head is one of those that query heads share.
func AtValue(layer, head int) Site { return siteOf(pb.SiteKind_SITE_KIND_VALUE, layer).ofHead(head) }

// AtAllHeads is all heads of a layer as one tensor, one after the other [pos n_heads * d_head].
func AtAllHeads(layer int) Site { return siteOf(pb.SiteKind_SITE_KIND_HEAD, layer).ofAllHeads() }

// AtAllPatterns is those of all query heads of a layer as one tensor [query_pos n_heads * key_pos].
func AtAllPatterns(layer int) Site { return siteOf(pb.SiteKind_SITE_KIND_PATTERN, layer).ofAllHeads() }

// AtAllQueries is those of all query heads of a layer as one tensor [pos n_heads * d_head].
func AtAllQueries(layer int) Site { return siteOf(pb.SiteKind_SITE_KIND_QUERY, layer).ofAllHeads() }

// AtAllKeys is all keys of a layer as one tensor [pos n_kv_heads * d_head].
func AtAllKeys(layer int) Site { return siteOf(pb.SiteKind_SITE_KIND_KEY, layer).ofAllHeads() }

// AtAllValues is all values of a layer as one tensor [pos n_kv_heads * d_head].
func AtAllValues(layer int) Site { return siteOf(pb.SiteKind_SITE_KIND_VALUE, layer).ofAllHeads() }

// AtNeurons is the activations of these neurons right after the activation function [pos neuron].
func AtNeurons(layer int, neurons ...int) Site {
	site := siteOf(pb.SiteKind_SITE_KIND_NEURONS, layer)
	if len(neurons) == 0 {
		return site.failed(failure(ErrInvalidRequest, "neurons is empty: name at least one, or write AtAllNeurons"))
	}
	var err error
	site.wire.Neurons, err = indices("neurons", neurons)
	return site.failed(err)
}

// AtAllNeurons is the activations of all neurons of a layer.
func AtAllNeurons(layer int) Site { return siteOf(pb.SiteKind_SITE_KIND_NEURONS, layer) }

// String names the site as servers do.
func (s Site) String() string {
	if s.wire == nil {
		return "no site"
	}
	name := strings.ToLower(strings.TrimPrefix(s.wire.Kind.String(), "SITE_KIND_"))
	more := ""
	if s.wire.Head != nil {
		more = fmt.Sprintf(", %d", *s.wire.Head)
	}
	if len(s.wire.Neurons) > 0 {
		more += ", " + listed(s.wire.Neurons)
	}
	return fmt.Sprintf("%s(%d%s)", name, s.wire.Layer, more)
}

// listed is the first of some numbers, and how many there are.
func listed(numbers []int32) string {
	const most = 8
	var named []string
	for i := 0; i < len(numbers) && i < most; i++ {
		named = append(named, fmt.Sprint(numbers[i]))
	}
	if len(numbers) > most {
		named = append(named, fmt.Sprintf("... %d in all", len(numbers)))
	}
	return "[" + strings.Join(named, ", ") + "]"
}

func siteOf(kind pb.SiteKind, layer int) Site {
	number, err := index("layer", layer)
	return Site{&pb.Site{Kind: kind, Layer: number}, err}
}

func (s Site) ofHead(head int) Site {
	number, err := index("head", head)
	s.wire.Head = &number
	return s.failed(err)
}

func (s Site) ofAllHeads() Site {
	s.wire.AllHeads = true
	return s
}

// failed is the site with its first error.
func (s Site) failed(err error) Site {
	if s.err == nil {
		s.err = err
	}
	return s
}

func (s Site) check() error {
	if s.wire == nil {
		return failure(ErrInvalidRequest, "an edit is at a site such as AtResidualOut(3): this one has none")
	}
	return s.err
}

// index is a number that travels.
func index(name string, number int) (int32, error) {
	if number < math.MinInt32 || number > math.MaxInt32 {
		return 0, failure(ErrInvalidRequest, "%s %d does not fit into 32 bits: no model has that many", name, number).because(
			"INVALID_REQUEST", "argument", name)
	}
	return int32(number), nil
}

// indices are such numbers.
func indices(name string, numbers []int) ([]int32, error) {
	found := make([]int32, len(numbers))
	for i, number := range numbers {
		var err error
		if found[i], err = index(name, number); err != nil {
			return nil, err
		}
	}
	return found, nil
}
