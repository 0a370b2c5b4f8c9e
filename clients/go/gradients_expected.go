package transparentllm

import (
	"fmt"

	"transparentllm.dev/go/internal/wire"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// expectedTensors are all tensors of a stream, in their order.
type expectedTensors []expectedTensor

// expectedTensor is what is known of one.
type expectedTensor struct {
	name  string
	dims  []string
	dtype Dtype
	sizes map[string]uint64 // of axes, where they are known
}

// mostSiteName is where the name of a site is cut as that of a tensor.
const mostSiteName = 128

var gradientAxes = map[pb.SiteKind][]string{
	pb.SiteKind_SITE_KIND_HEAD:    {"batch", "pos", "head", "d_head"},
	pb.SiteKind_SITE_KIND_QUERY:   {"batch", "pos", "head", "d_head"},
	pb.SiteKind_SITE_KIND_KEY:     {"batch", "pos", "kv_head", "d_head"},
	pb.SiteKind_SITE_KIND_VALUE:   {"batch", "pos", "kv_head", "d_head"},
	pb.SiteKind_SITE_KIND_PATTERN: {"batch", "head", "query_pos", "key_pos"},
	pb.SiteKind_SITE_KIND_NEURONS: {"batch", "pos", "neuron"},
}

// edgeAxes are the tensors of edges in their order, with their axes after those of rows and senders.
var edgeAxes = []struct {
	name string
	dims []string
}{
	{"query", []string{"layer", "head"}},
	{"key", []string{"layer", "kv_head"}},
	{"value", []string{"layer", "kv_head"}},
	{"ffn", []string{"layer"}},
	{"logits", nil},
}

// gradientsExpected is what an answer has, of a model that is nil where it is not known.
func gradientsExpected(held *run, model *pb.ModelDescription, asked *pb.GradientsRequest) expectedTensors {
	sizes := gradientSizes(held, model, asked.Rows)
	numbers := []string{"metric"}
	if asked.Path != nil {
		numbers = append(numbers, "baseline_metric", "delta")
	}
	var all expectedTensors
	for _, name := range numbers {
		all = append(all, expectedTensor{name, []string{"batch"}, F64, sizes})
	}
	if asked.Path != nil {
		at := &pb.GradientSite{Site: asked.Path.Site, Form: pb.GradientForm_GRADIENT_FORM_GRADIENT}
		return append(all, expectedTensor{"integrated_gradients", gradientDims(at), F32, sizes})
	}
	if asked.Edges != nil {
		for _, each := range edgeAxes {
			all = append(all, expectedTensor{each.name, append([]string{"batch", "sender"}, each.dims...), F32, sizes})
		}
		return all
	}
	for _, each := range asked.Sites {
		all = append(all, expectedTensor{nameOfSite(Site{wire: each.Site}), gradientDims(each), F32, sizesAt(each.Site, model, sizes)})
	}
	return all
}

// nameOfSite is that of the tensor of its gradient.
func nameOfSite(site Site) string {
	name := site.String()
	if len(name) > mostSiteName {
		return name[:mostSiteName]
	}
	return name
}

// gradientDims are the axes of what is told of a gradient.
func gradientDims(asked *pb.GradientSite) []string {
	axes, isKnown := gradientAxes[asked.Site.Kind]
	if !isKnown {
		axes = []string{"batch", "pos", "d_model"}
	}
	var dims []string
	for _, axis := range axes {
		if asked.Site.Head == nil || (axis != "head" && axis != "kv_head") {
			dims = append(dims, axis)
		}
	}
	isOfNumbers := asked.Site.Kind == pb.SiteKind_SITE_KIND_NEURONS || asked.Site.Kind == pb.SiteKind_SITE_KIND_PATTERN
	if asked.Form != pb.GradientForm_GRADIENT_FORM_GRADIENT && !isOfNumbers {
		dims = dims[:len(dims)-1]
	}
	return dims
}

// gradientSizes of the axes of some rows of a run, which are padded to the longest of them; of no rows those of all.
func gradientSizes(held *run, model *pb.ModelDescription, rows []int32) map[string]uint64 {
	batch, length := held.tokens.shape[0], held.tokens.shape[1]
	if longest := longestOf(held, rows); longest > 0 {
		length = longest
	}
	sizes := map[string]uint64{"batch": uint64(batch)}
	if len(rows) > 0 {
		sizes["batch"] = uint64(len(rows))
	}
	for _, axis := range []string{"pos", "query_pos", "key_pos"} {
		sizes[axis] = uint64(length)
	}
	if info := model.GetInfo(); info != nil {
		sizes["head"], sizes["d_model"] = uint64(info.NHeads), uint64(info.DModel)
		sizes["layer"], sizes["sender"] = uint64(info.NLayers), 1+uint64(info.NLayers)*(uint64(info.NHeads)+1)
	}
	return sizes
}

// longestOf is the number of tokens of the longest of some rows; 0 where it is not known.
func longestOf(held *run, rows []int32) (longest int) {
	batch := held.tokens.shape[0]
	for _, row := range rows {
		at := int(row)
		if at < 0 {
			at += batch
		}
		if held.mask == nil || at < 0 || at >= batch {
			continue
		}
		if length := lengthOf(held.mask, at); length > longest {
			longest = length
		}
	}
	return longest
}

// sizesAt are these and that of the neurons of a site.
func sizesAt(site *pb.Site, model *pb.ModelDescription, sizes map[string]uint64) map[string]uint64 {
	count := uint64(len(site.Neurons))
	if layers := len(model.GetDFfn()); site.Kind == pb.SiteKind_SITE_KIND_NEURONS && count == 0 {
		layer := int(site.Layer)
		if layer < 0 {
			layer += layers
		}
		if layer >= 0 && layer < layers {
			count = uint64(model.DFfn[layer])
		}
	}
	if count == 0 {
		return sizes
	}
	made := map[string]uint64{"neuron": count}
	for axis, size := range sizes {
		made[axis] = size
	}
	return made
}

func (e expectedTensors) check(head *pb.TensorHeader) error {
	var refused error
	for _, one := range e {
		if one.name == head.Name {
			if refused = one.check(head); refused == nil {
				return nil
			}
		}
	}
	if refused == nil {
		refused = failure(ErrInternal, "the server sent %q, which was not asked for", head.Name)
	}
	return refused
}

// continues: all tensors are one value, so that a limit is one of their sum.
func (e expectedTensors) continues(_, _ *pb.TensorHeader) bool { return true }

// whole are the tensors that came, if they are all in their order.
func (e expectedTensors) whole(came []wire.Tensor) ([]*Tensor, error) {
	if len(came) != len(e) {
		return nil, failure(ErrInternal, "the server sent %d tensors, not the %d that were asked for", len(came), len(e))
	}
	tensors := make([]*Tensor, len(came))
	for i, held := range came {
		if held.Header.Name != e[i].name {
			return nil, failure(ErrInternal, "the server sent %q in the place of %q", held.Header.Name, e[i].name)
		}
		if err := e[i].check(held.Header); err != nil {
			return nil, err
		}
		tensors[i] = arrived(held)
	}
	return tensors, nil
}

func (e expectedTensor) check(head *pb.TensorHeader) error {
	if Dtype(head.Dtype) != e.dtype || fmt.Sprint(head.Dims) != fmt.Sprint(e.dims) || len(head.Dims) != len(e.dims) {
		return failure(ErrInternal, "the server sent %q as %v with the axes %q, not as %v with %q", head.Name, Dtype(head.Dtype),
			head.Dims, e.dtype, e.dims)
	}
	if len(head.Shape) != len(e.dims) {
		return failure(ErrInternal, "the server sent %q with %d lengths for %d axes", head.Name, len(head.Shape), len(e.dims))
	}
	for i, axis := range e.dims {
		if size, isKnown := e.sizes[axis]; isKnown && head.Shape[i] != size {
			return failure(ErrInternal, "the server sent %q with %d along %q, not %d", head.Name, head.Shape[i], axis, size)
		}
	}
	return nil
}
