package transparentllm

import (
	"math"
	"strconv"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

const servicePath = "/transparent_llm.v1.TransparentLlmService/"

// method is one row of the table that maps methods to the wire, as service.proto says.
type method struct {
	name      string   // in the headers: residual_in
	rpc       string   // in the service: ResidualIn
	arguments []string // indices, under the names of the request
	dims      []string // axes of the value
	ofRun     bool     // whether it reads a run, or the model alone
	dtype     Dtype    // of its elements; 0: a floating type
	parts     []part   // the factors that it can come as, in order; without dims the tensors that it is
	weights   string   // the method whose value is a factor too; empty: none is

	parameters []*parameter // arguments that are no indices, in order
}

// part is one tensor of several that are a value together.
type part struct {
	name     string
	dims     []string
	dtype    Dtype // 0: that of the value
	optional bool  // then it can be a scalar too, if it is floating
	sparse   bool  // its first axis can be shorter than that axis is
}

var (
	methods   = map[string]*method{}
	knownAxes = map[string]bool{}
)

func init() {
	rpcs := pb.File_transparent_llm_v1_service_proto.Services().ByName("TransparentLlmService").Methods()
	for i := 0; i < rpcs.Len(); i++ {
		if rpc := rpcs.Get(i); rpc.IsStreamingServer() && proto.HasExtension(rpc.Options(), pb.E_Method) {
			m := methodOf(rpc)
			methods[m.name] = m
			for _, axis := range m.axes() {
				knownAxes[axis] = true
			}
		}
	}
}

// methodOf reads the row that stands at an RPC and at the indices of its request.
func methodOf(rpc protoreflect.MethodDescriptor) *method {
	spec := proto.GetExtension(rpc.Options(), pb.E_Method).(*pb.MethodSpec)
	m := &method{name: snakeCase(string(rpc.Name())), rpc: string(rpc.Name()), dims: strings.Fields(spec.Dims),
		dtype: Dtype(spec.Dtype), weights: spec.Weights}
	for _, described := range spec.Parts {
		m.parts = append(m.parts, part{described.Name, strings.Fields(described.Dims), Dtype(described.Dtype),
			described.Optional, described.Sparse})
	}
	fields := rpc.Input().Fields()
	m.ofRun = fields.ByName("run_id") != nil
	for i := 0; i < fields.Len(); i++ {
		field := fields.Get(i)
		if proto.HasExtension(field.Options(), pb.E_Index) {
			m.arguments = append(m.arguments, string(field.Name()))
		}
		if proto.HasExtension(field.Options(), pb.E_Parameter) {
			m.parameters = append(m.parameters, parameterOf(field))
		}
	}
	return m
}

func snakeCase(rpc string) string {
	var made strings.Builder
	for i, letter := range rpc {
		if i > 0 && unicode.IsUpper(letter) {
			made.WriteByte('_')
		}
		made.WriteRune(unicode.ToLower(letter))
	}
	return made.String()
}

// integers tells whether its values have no floating type.
func (m *method) integers() bool { return m.dtype != 0 && !m.dtype.IsFloating() }

// isParts tells whether its value is several tensors, which always come.
func (m *method) isParts() bool { return len(m.dims) == 0 && len(m.parts) > 0 }

// axes are those of its value; of several tensors those of all of them.
func (m *method) axes() []string {
	if !m.isParts() {
		return m.dims
	}
	var found []string
	seen := map[string]bool{}
	for _, part := range m.parts {
		for _, axis := range part.dims {
			if !seen[axis] {
				found, seen[axis] = append(found, axis), true
			}
		}
	}
	return found
}

// place of its part of that name; -1 if it has none.
func (m *method) place(name string) int {
	for i := range m.parts {
		if m.parts[i].name == name {
			return i
		}
	}
	return -1
}

// part gives its part of that name; nil if it has none.
func (m *method) part(name string) *part {
	if place := m.place(name); place >= 0 {
		return &m.parts[place]
	}
	return nil
}

// partNames lists its parts, for messages.
func (m *method) partNames() string {
	names := make([]string, len(m.parts))
	for i, part := range m.parts {
		names[i] = part.name
	}
	return strings.Join(names, ", ")
}

// tensors is how many it comes in, at most.
func (m *method) tensors(factored bool) int {
	if factored || m.isParts() {
		return len(m.parts)
	}
	return 1
}

// parameter gives its parameter of that name; nil if it has none.
func (m *method) parameter(name string) *parameter {
	for _, one := range m.parameters {
		if one.name == name {
			return one
		}
	}
	return nil
}

// request asks for a value of a run, or of a model where the method reads none; indices that are missing at the end are
// left out.
func (r Read) request(target string, options *pb.TensorOptions) (proto.Message, error) {
	m := r.method
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("transparent_llm.v1." + m.rpc + "Request"))
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
	for i, index := range r.indices {
		if int64(index) < math.MinInt32 || int64(index) > math.MaxInt32 {
			return nil, failure(ErrIndexOutOfRange, "%s %d is out of range: no axis is that long", m.arguments[i], index).because(
				"INDEX_OUT_OF_RANGE", "axis", m.arguments[i], "got", strconv.Itoa(index))
		}
		message.Set(fields.ByName(protoreflect.Name(m.arguments[i])), protoreflect.ValueOfInt32(int32(index)))
	}
	for _, one := range m.parameters {
		if got, given := r.parameters[one.name]; given {
			if err := one.set(message, got); err != nil {
				return nil, err
			}
		}
	}
	message.Set(fields.ByName("options"), protoreflect.ValueOfMessage(options.ProtoReflect()))
	return message.Interface(), nil
}

// item of a Fetch: the request that would bring the value alone.
func (r Read) item(options *pb.TensorOptions) (*pb.FetchItem, error) {
	request, err := r.request("", options)
	if err != nil {
		return nil, err
	}
	item := &pb.FetchItem{}
	field := item.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(r.method.name))
	item.ProtoReflect().Set(field, protoreflect.ValueOfMessage(request.ProtoReflect()))
	return item, nil
}
