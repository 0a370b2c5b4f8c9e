// Command driver makes the calls of the conformance suite with the Go client and says what came. The protocol is in
// tests/conformance/README.md: a JSON object in one line for each request, and one for each answer.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	transparentllm "transparentllm.dev/go"
)

// request has the fields of every op.
type request struct {
	ID           json.RawMessage      `json:"id"`
	Op           string               `json:"op"`
	LLM          string               `json:"llm"`
	Target       string               `json:"target"`
	Options      connectOptions       `json:"options"`
	To           string               `json:"to"`
	Method       string               `json:"method"`
	Args         []json.RawMessage    `json:"args"`
	Edits        []editFields         `json:"edits"`
	Generation   *generationFields    `json:"generation"`
	Metric       *metricFields        `json:"metric"`
	Sites        []gradientFields     `json:"sites"`
	Rows         []int                `json:"rows"`
	Frozen       []string             `json:"frozen"`
	Path         *pathFields          `json:"path"`
	Edges        *edgesFields         `json:"edges"`
	Other        string               `json:"other"`
	FromPos      *int                 `json:"from_pos"`
	Templates    []editFields         `json:"templates"`
	Before       []editFields         `json:"before"`
	Cells        []cellFields         `json:"cells"`
	Metrics      []metricFields       `json:"metrics"`
	Slices       map[string][3]*int64 `json:"slices"`
	Dtype        string               `json:"dtype"`
	CancelAfterS *float64             `json:"cancel_after_s"`
	Progress     bool                 `json:"progress"`
	Times        int                  `json:"times"`
	Streams      [][][]byte           `json:"streams"`
	MaxBytes     uint64               `json:"max_bytes"`
	Code         uint32               `json:"code"`
	Message      string               `json:"message"`
	Details      []byte               `json:"details"`
	clients      map[string]*transparentllm.Client
}

type fields = map[string]any

var ops = map[string]func(*request) (any, error){
	"hello":        hello,
	"connect":      connect,
	"copy":         copyClient,
	"call":         call,
	"time":         timed,
	"close":        closeClient,
	"decode":       decode,
	"decode_error": decodeError,
}

func main() {
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve answers line by line until the input ends.
func serve(input io.Reader, output io.Writer) error {
	lines, clients := bufio.NewReader(input), map[string]*transparentllm.Client{}
	encoder := json.NewEncoder(output)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil && err != io.EOF {
			return err
		}
		asked := &request{LLM: "main", clients: clients}
		if err := json.Unmarshal(line, asked); err != nil {
			return fmt.Errorf("a line that is no request: %w", err)
		}
		if err := encoder.Encode(answer(asked)); err != nil {
			return err
		}
	}
}

func answer(asked *request) fields {
	op, known := ops[asked.Op]
	if !known {
		return fields{"id": asked.ID, "error": described(fmt.Errorf("no such op: %q", asked.Op))}
	}
	got, err := op(asked)
	if err != nil {
		return fields{"id": asked.ID, "error": described(err)}
	}
	return fields{"id": asked.ID, "ok": got}
}

func hello(*request) (any, error) {
	return fields{"client": "go", "version": transparentllm.Version}, nil
}

// described is an error as the suite compares it; one that is not the client's is the driver's.
func described(err error) fields {
	var failed *transparentllm.Error
	if !errors.As(err, &failed) {
		return fields{"class": "DriverError", "reason": "", "message": err.Error(), "metadata": fields{}, "retry_after_s": nil}
	}
	made := fields{"class": failed.Class.Error(), "reason": failed.Reason, "message": failed.Message, "retry_after_s": nil}
	made["metadata"] = failed.Metadata
	if failed.Metadata == nil {
		made["metadata"] = fields{}
	}
	if delay, said := failed.RetryAfter(); said {
		made["retry_after_s"] = delay.Seconds()
	}
	return made
}
