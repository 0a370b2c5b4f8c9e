package transparentllm

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// Parameters are arguments that are no indices, by their names in analysis.proto: an int, a float64, a bool, a string, the
// name of a choice as in "after_attn", or a []int. One that is not there is 0, false, empty, or the first choice.
type Parameters map[string]any

// mostNumbers that a list may have.
const mostNumbers = 4096

// parameter is one of a method.
type parameter struct {
	name       string
	field      protoreflect.FieldDescriptor
	choices    []string // of an enum, in the order of their numbers from 1 on
	sizeOf     string   // the axis of the value that is as long as this says; empty: none is
	allIfEmpty bool     // whether an empty list stands for the whole axis
}

func parameterOf(field protoreflect.FieldDescriptor) *parameter {
	spec := proto.GetExtension(field.Options(), pb.E_Parameter).(*pb.ParameterSpec)
	return &parameter{string(field.Name()), field, choicesOf(field.Enum()), spec.SizeOf, spec.AllIfEmpty}
}

// choicesOf names an enum's values but the first, which says what they all begin with.
func choicesOf(enum protoreflect.EnumDescriptor) []string {
	if enum == nil {
		return nil
	}
	values := enum.Values()
	prefix := strings.TrimSuffix(string(values.Get(0).Name()), "UNSPECIFIED")
	var names []string
	for i := 1; i < values.Len(); i++ {
		names = append(names, strings.ToLower(strings.TrimPrefix(string(values.Get(i).Name()), prefix)))
	}
	return names
}

// size is the length that an argument gives to its axis; false: that of the whole.
func (p *parameter) size(got any) (int64, bool) {
	switch given := got.(type) {
	case []int:
		return int64(len(given)), len(given) > 0 || !p.allIfEmpty
	case int:
		return int64(given), true
	}
	return 0, !p.allIfEmpty
}

// set puts an argument into a request.
func (p *parameter) set(message protoreflect.Message, got any) error {
	if p.field.IsList() {
		return p.setList(message, got)
	}
	value, err := p.value(got)
	if err == nil {
		message.Set(p.field, value)
	}
	return err
}

func (p *parameter) setList(message protoreflect.Message, got any) error {
	given, ok := got.([]int)
	if !ok {
		return p.wrong("a []int", got)
	}
	if len(given) > mostNumbers {
		return failure(ErrTooLarge, "%s has %d numbers, at most %d are taken; ask several times", p.name, len(given), mostNumbers).
			because("TOO_LARGE", "needed", strconv.Itoa(len(given)), "allowed", strconv.Itoa(mostNumbers))
	}
	list := message.Mutable(p.field).List()
	for _, number := range given {
		if err := p.requireWithin(number, math.MinInt32, math.MaxInt32); err != nil {
			return err
		}
		list.Append(protoreflect.ValueOfInt32(int32(number)))
	}
	return nil
}

func (p *parameter) value(got any) (protoreflect.Value, error) {
	switch given := got.(type) {
	case string:
		if p.field.Kind() == protoreflect.StringKind {
			if !utf8.ValidString(given) {
				return protoreflect.Value{}, p.wrong("valid UTF-8", got)
			}
			return protoreflect.ValueOfString(given), nil
		}
		for place, choice := range p.choices {
			if choice == given {
				return protoreflect.ValueOfEnum(protoreflect.EnumNumber(place + 1)), nil
			}
		}
	case protoreflect.Enum:
		if p.field.Enum() == given.Descriptor() {
			return protoreflect.ValueOfEnum(given.Number()), nil
		}
	case bool:
		if p.field.Kind() == protoreflect.BoolKind {
			return protoreflect.ValueOfBool(given), nil
		}
	case float64:
		if p.field.Kind() == protoreflect.DoubleKind {
			return protoreflect.ValueOfFloat64(given), nil
		}
	case int:
		if p.field.Kind() == protoreflect.Uint32Kind {
			return protoreflect.ValueOfUint32(uint32(given)), p.requireWithin(given, 0, math.MaxUint32)
		}
	}
	return protoreflect.Value{}, p.wrong(p.wanted(), got)
}

// wanted says what it can be.
func (p *parameter) wanted() string {
	switch p.field.Kind() {
	case protoreflect.EnumKind:
		return fmt.Sprintf("one of %q", p.choices)
	case protoreflect.BoolKind:
		return "a bool"
	case protoreflect.DoubleKind:
		return "a float64"
	case protoreflect.StringKind:
		return "a string"
	}
	return "an int"
}

func (p *parameter) wrong(wanted string, got any) error {
	return failure(ErrInvalidRequest, "%s must be %s, got %s", p.name, wanted, legible(fmt.Sprintf("%#v", got), 100)).because(
		"INVALID_REQUEST", "argument", p.name)
}

func (p *parameter) requireWithin(number int, least, most int64) error {
	if int64(number) >= least && int64(number) <= most {
		return nil
	}
	return failure(ErrInvalidRequest, "%s %d is out of range: %d to %d are numbers that it can be", p.name, number, least, most).
		because("INVALID_REQUEST", "argument", p.name, "got", strconv.Itoa(number))
}
