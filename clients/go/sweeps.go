package transparentllm

import (
	"context"
	"encoding/binary"
	"math"
	"strconv"

	"google.golang.org/protobuf/proto"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

const (
	mostMetrics = 16
	// cellsOfCall at most, so that no call of many cells runs into its deadline that one of fewer would not.
	cellsOfCall = 1024
)

// SweepCell has coordinates that are put in the places of those of each template. What is nil stays as it is there.
type SweepCell struct {
	Layer     *int
	Head      *int  // instead of the site's head, or of all its heads
	Neurons   []int // instead of the site's neurons
	Positions []int // instead of the positions, and of those of a patch's source
	SourceRow *int  // of a patch, the one row that all are taken from
}

// SweepOptions of Sweep.
type SweepOptions struct {
	Rows   []int  // of the run, which are swept; none: all
	Before []Edit // made in every cell as they stand, before the templates
	// Progress is called with the number of cells that have come, and of all. By the goroutine that asks.
	Progress func(came, all int)
}

// SweepParts is what Sweep answers.
type SweepParts struct {
	Baselines *Tensor // [metric row] F64; of the run with the edits of Before alone
	Values    *Tensor // [cell metric row] F64
}

// Sweep makes the same changes of the current run at many places, one cell at a time, and measures what each does: for example
// the logit of a token without each head in turn. Templates are made in every cell with its coordinates; their rows are those of
// the run that are swept, from 0. Nothing of it is stored.
//
// Errors: those of all reads and of Edits; ErrInvalidRequest where the run has edits of its own, or there is no template, cell or
// metric; ErrTooLarge for more than 16 metrics, 512 edits of one cell, or what the server computes at once; ErrNotSupported where
// the server knows no sweep.
func (c *Client) Sweep(ctx context.Context, templates []Edit, cells []SweepCell, metrics []Metric,
	options SweepOptions) (*SweepParts, error) {
	var from sources
	made, err := sweepOf(templates, cells, metrics, options, &from)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.calls.timeout)
	defer cancel()
	if err := c.require(ctx, "sweep"); err != nil {
		return nil, err
	}
	err = c.ofRun(ctx, func(held *run) error {
		if err := made.begin(held, c.calls.maxBytes); err != nil {
			return err
		}
		return c.bringing(ctx, from.runs, held.key, func() error { return c.swept(ctx, held, made) })
	})
	if err != nil {
		return nil, err
	}
	shape := []int{len(metrics), made.rows}
	return &SweepParts{tensorOf(made.baselines, shape, "metric", "row"),
		tensorOf(made.values, append([]int{len(cells)}, shape...), "cell", "metric", "row")}, nil
}

// swept asks for all cells that have not come, in as many calls as it takes.
func (c *Client) swept(ctx context.Context, held *run, made *sweep) error {
	atOnce := c.cellsAtOnce(made.rows * held.tokens.shape[1])
	for made.left > 0 {
		made.choose(atOnce)
		err := c.calls.receive(ctx, messages{"Sweep", held.key,
			func() (proto.Message, error) { return made.request(held.id), nil },
			func() proto.Message { return &pb.SweepResponse{} },
			func(message proto.Message) error { return made.take(message.(*pb.SweepResponse)) }})
		if err != nil {
			return err
		}
		if !made.hasAll() {
			return failure(ErrInternal, "%s ended a sweep before all of its cells had come", c.calls.target)
		}
	}
	return nil
}

// cellsAtOnce of one call, each of so many positions, within the limits of the server.
func (c *Client) cellsAtOnce(positions int) int {
	c.shared.mutex.Lock()
	limits := c.limits
	c.shared.mutex.Unlock()
	most := uint64(cellsOfCall)
	if cells := uint64(limits.GetMaxSweepCells()); cells > 0 && cells < most {
		most = cells
	}
	if total := limits.GetMaxSweepPositions(); total > 0 && total/uint64(positions) < most {
		most = total / uint64(positions)
	}
	if most == 0 {
		return 1
	}
	return int(most)
}

// sweep is one under way, with what has come of it.
type sweep struct {
	asked    *pb.SweepRequest // without cells
	cells    []*pb.SweepCell
	progress func(came, all int)

	rows      int
	hasCome   []bool
	left      int
	baselines []float64
	values    []float64
	chosen    []int // numbers of the cells of the call
	isFirst   bool  // whether the next message is the first of its answer
}

func sweepOf(templates []Edit, cells []SweepCell, metrics []Metric, options SweepOptions, from *sources) (*sweep, error) {
	for name, count := range map[string]int{"templates": len(templates), "cells": len(cells), "metrics": len(metrics)} {
		if count == 0 {
			return nil, failure(ErrInvalidRequest, "a sweep has no %s: give at least one", name)
		}
	}
	if err := first(requireFewOf("edits of one cell", len(templates)+len(options.Before), mostEdits),
		requireFewOf("metrics of one sweep", len(metrics), mostMetrics)); err != nil {
		return nil, err
	}
	made := &sweep{asked: &pb.SweepRequest{}, progress: options.Progress}
	var err error
	if made.asked.Rows, err = indices("rows", options.Rows); err != nil {
		return nil, err
	}
	if made.asked.Edits, err = interventions(options.Before, from); err != nil {
		return nil, err
	}
	if made.asked.Templates, err = interventions(templates, from); err != nil {
		return nil, err
	}
	for _, metric := range metrics {
		message, err := metric.on(from)
		if err != nil {
			return nil, err
		}
		made.asked.Metrics = append(made.asked.Metrics, message)
	}
	for _, cell := range cells {
		message, err := cell.message()
		if err != nil {
			return nil, err
		}
		made.cells = append(made.cells, message)
	}
	return made, nil
}

func (c SweepCell) message() (made *pb.SweepCell, err error) {
	made = &pb.SweepCell{}
	for _, each := range []struct {
		name  string
		given *int
		into  **int32
	}{{"layer", c.Layer, &made.Layer}, {"head", c.Head, &made.Head}, {"source row", c.SourceRow, &made.SourceRow}} {
		if each.given == nil {
			continue
		}
		number, err := index(each.name, *each.given)
		if err != nil {
			return nil, err
		}
		*each.into = &number
	}
	if made.Neurons, err = indices("neurons", c.Neurons); err != nil {
		return nil, err
	}
	made.Positions, err = indices("positions", c.Positions)
	return made, err
}

// begin takes the memory of an answer, once.
func (s *sweep) begin(held *run, maxBytes int64) error {
	if s.hasCome != nil {
		return nil
	}
	if s.rows = len(s.asked.Rows); s.rows == 0 {
		s.rows = held.tokens.shape[0]
	}
	count := len(s.cells) * s.ofCell()
	if int64(count) > maxBytes/8 {
		return failure(ErrTooLarge, "the sweep has %d numbers, but this client accepts at most %d bytes: sweep fewer cells or rows",
			count, maxBytes).because("TOO_LARGE", "needed", strconv.Itoa(8*count), "allowed", strconv.FormatInt(maxBytes, 10))
	}
	s.hasCome, s.left = make([]bool, len(s.cells)), len(s.cells)
	s.values = make([]float64, count)
	return nil
}

// ofCell is how many numbers each has.
func (s *sweep) ofCell() int { return len(s.asked.Metrics) * s.rows }

// choose takes some of the cells that have not come.
func (s *sweep) choose(most int) {
	s.chosen = nil
	for cell := 0; cell < len(s.cells) && len(s.chosen) < most; cell++ {
		if !s.hasCome[cell] {
			s.chosen = append(s.chosen, cell)
		}
	}
}

// request is for those of the chosen cells that have not come.
func (s *sweep) request(runID string) *pb.SweepRequest {
	var chosen []int
	s.asked.RunId, s.asked.Cells, s.isFirst = runID, nil, true
	for _, cell := range s.chosen {
		if !s.hasCome[cell] {
			chosen = append(chosen, cell)
			s.asked.Cells = append(s.asked.Cells, s.cells[cell])
		}
	}
	s.chosen = chosen
	return s.asked
}

// take notes what a message has, if it is of these cells.
func (s *sweep) take(message *pb.SweepResponse) error {
	ofCell, baselines := s.ofCell(), 0
	if s.isFirst {
		baselines = ofCell
	}
	isRight := len(message.Values) == len(message.Cells)*ofCell && len(message.Baselines) == baselines
	if !isRight || (len(message.Cells) == 0 && !s.isFirst) {
		return failure(ErrInternal, "the server sent %d values and %d baselines for %d cells of %d metrics and %d rows",
			len(message.Values), len(message.Baselines), len(message.Cells), len(s.asked.Metrics), s.rows)
	}
	if s.isFirst && s.baselines == nil {
		s.baselines = message.Baselines
	}
	s.isFirst = false
	for i, number := range message.Cells {
		if uint64(number) >= uint64(len(s.chosen)) || s.hasCome[s.chosen[number]] {
			return failure(ErrInternal, "the server sent cell %d, which was not asked for, or twice", number)
		}
		cell := s.chosen[number]
		copy(s.values[cell*ofCell:], message.Values[i*ofCell:(i+1)*ofCell])
		s.hasCome[cell] = true
		s.left--
	}
	if s.progress != nil {
		s.progress(len(s.cells)-s.left, len(s.cells))
	}
	return nil
}

// hasAll tells whether all of the chosen cells have come.
func (s *sweep) hasAll() bool {
	for _, cell := range s.chosen {
		if !s.hasCome[cell] {
			return false
		}
	}
	return true
}

// tensorOf is an F64 tensor of these numbers.
func tensorOf(values []float64, shape []int, dims ...string) *Tensor {
	data := make([]byte, 8*len(values))
	for i, value := range values {
		binary.LittleEndian.PutUint64(data[8*i:], math.Float64bits(value))
	}
	return &Tensor{F64, shape, dims, data}
}
