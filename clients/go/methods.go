package transparentllm

import (
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

const servicePath = "/transparent_llm.v1.TransparentLlmService/"

// method is one row of the table that maps methods to the wire.
type method struct {
	name      string   // in the headers: residual_in
	arguments []string // indices, under the names of the request
	dims      []string // axes of the value
	ofRun     bool     // whether it reads a run, or the model alone
	integers  bool     // whether its values have no floating type
}

var (
	residualDims = []string{"batch", "pos", "d_model"}
	methods      = map[string]*method{}
	knownAxes    = map[string]bool{}
)

func init() {
	for _, m := range []*method{
		{name: "tokens", dims: []string{"batch", "pos"}, ofRun: true, integers: true},
		{name: "logits", dims: []string{"batch", "pos", "d_vocab"}, ofRun: true},
		{name: "unembed", dims: []string{"vocab"}},
		{name: "residual_in", arguments: []string{"layer"}, dims: residualDims, ofRun: true},
		{name: "residual_after_attn", arguments: []string{"layer"}, dims: residualDims, ofRun: true},
		{name: "residual_out", arguments: []string{"layer"}, dims: residualDims, ofRun: true},
		{name: "ffn_out", arguments: []string{"layer"}, dims: residualDims, ofRun: true},
		{name: "decomposed_ffn_out", arguments: []string{"batch_i", "layer", "pos"}, dims: []string{"hidden", "d_model"}, ofRun: true},
		{name: "neuron_activations", arguments: []string{"batch_i", "layer", "pos"}, dims: []string{"d_ffn"}, ofRun: true},
		{name: "neuron_output", arguments: []string{"layer", "neuron"}, dims: []string{"d_model"}},
		{name: "attention_matrix", arguments: []string{"batch_i", "layer", "head"}, dims: []string{"query_pos", "key_pos"}, ofRun: true},
		{name: "attention_output", arguments: []string{"batch_i", "layer", "pos", "head"}, dims: []string{"d_model"}, ofRun: true},
		{name: "decomposed_attn", arguments: []string{"batch_i", "layer"}, dims: []string{"target", "source", "head", "d_model"}, ofRun: true},
		{name: "neuron_outputs", arguments: []string{"layer"}, dims: []string{"d_ffn", "d_model"}},
	} {
		methods[m.name] = m
		for _, axis := range m.dims {
			knownAxes[axis] = true
		}
	}
}

// rpc is its name in the service: ResidualIn.
func (m *method) rpc() string {
	words := strings.Split(m.name, "_")
	for i, word := range words {
		words[i] = strings.ToUpper(word[:1]) + word[1:]
	}
	return strings.Join(words, "")
}

// request asks for a value of a run, or of a model where the method reads none; indices that are missing at the end are
// left out.
func (m *method) request(target string, indices []int, options *pb.TensorOptions) (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("transparent_llm.v1." + m.rpc() + "Request"))
	if err != nil {
		return nil, failure(ErrInternal, "the generated code has no request for %s: %v", m.name, err)
	}
	message := kind.New()
	fields := message.Descriptor().Fields()
	owner := protoreflect.Name("model")
	if m.ofRun {
		owner = "run_id"
	}
	message.Set(fields.ByName(owner), protoreflect.ValueOfString(target))
	for i, index := range indices {
		if int64(index) < math.MinInt32 || int64(index) > math.MaxInt32 {
			return nil, failure(ErrIndexOutOfRange, "%s %d is out of range: no axis is that long", m.arguments[i], index).because(
				"INDEX_OUT_OF_RANGE", "axis", m.arguments[i], "got", strconv.Itoa(index))
		}
		message.Set(fields.ByName(protoreflect.Name(m.arguments[i])), protoreflect.ValueOfInt32(int32(index)))
	}
	message.Set(fields.ByName("options"), protoreflect.ValueOfMessage(options.ProtoReflect()))
	return message.Interface(), nil
}

// item of a Fetch: the request that would bring the value alone.
func (m *method) item(indices []int, options *pb.TensorOptions) (*pb.FetchItem, error) {
	request, err := m.request("", indices, options)
	if err != nil {
		return nil, err
	}
	item := &pb.FetchItem{}
	field := item.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(m.name))
	item.ProtoReflect().Set(field, protoreflect.ValueOfMessage(request.ProtoReflect()))
	return item, nil
}
