package transparentllm

import (
	"context"
	"math"
	"strconv"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// RowComparison is what one row of a run says of the next token beside the same row of another, each at its last token.
type RowComparison struct {
	// KL is KL(run || other) of the next token, in nats, summed in double precision: 0 where both say the same.
	KL float64
	// TopToken is the most likely next token of the run, and TopString its text.
	TopToken  int64
	TopString string
	// OtherTopToken is that of the other run, and OtherTopString its text.
	OtherTopToken  int64
	OtherTopString string
	// KLByPos is the same divergence at each position from that of FromPos to the row's last token; empty without.
	KLByPos []float64
}

// TopChanged tells whether the runs differ in the most likely token.
func (r RowComparison) TopChanged() bool { return r.TopToken != r.OtherTopToken }

// CompareOption is one of what Compare can be told.
type CompareOption func(*compareOptions)

type compareOptions struct{ fromPos *int }

// FromPos compares rows at each position from this one to their last token too; they are of the same tokens in both runs then. A
// negative one counts from the end of the shortest row.
func FromPos(pos int) CompareOption { return func(o *compareOptions) { o.fromPos = &pos } }

// Compare is what the current run says of the next token beside another client's current run, row by row. Runs that the server lost
// are made again.
//
// Errors: ErrNotRun where one of them has none; ErrInvalidRequest for a run of more or fewer rows, or, with FromPos, of other
// tokens; ErrIndexOutOfRange for a position that a row does not have; ErrNotSupported where the server knows no comparisons.
func (c *Client) Compare(ctx context.Context, other *Client, options ...CompareOption) ([]RowComparison, error) {
	var asked compareOptions
	for _, option := range options {
		option(&asked)
	}
	var from sources
	otherID, err := from.id(other)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.calls.timeout)
	defer cancel()
	feature := "compare_runs"
	if asked.fromPos != nil {
		feature = "compare_positions"
	}
	if err := c.require(ctx, feature); err != nil {
		return nil, err
	}
	var rows []RowComparison
	err = c.ofRun(ctx, func(held *run) error {
		request := &pb.CompareRunsRequest{RunId: held.id, OtherRunId: otherID}
		lengths, err := asked.lengths(held, request)
		if err != nil {
			return err
		}
		answer := &pb.CompareRunsResponse{}
		err = c.bringing(ctx, from.runs, held.key, func() error {
			answer.Reset()
			return c.calls.unary(ctx, "CompareRuns", request, answer, held.key)
		})
		if err == nil {
			rows, err = comparisonsOf(answer, lengths)
		}
		return err
	})
	return rows, err
}

// lengths are the positions that are compared of each row; the first of them goes into the request.
func (o compareOptions) lengths(held *run, request *pb.CompareRunsRequest) ([]int, error) {
	lengths := make([]int, held.tokens.shape[0])
	if o.fromPos == nil {
		return lengths, nil
	}
	shortest := held.tokens.shape[1]
	for row := range lengths {
		if lengths[row] = held.length(row); lengths[row] < shortest {
			shortest = lengths[row]
		}
	}
	start := *o.fromPos
	if start < 0 {
		start += shortest
	}
	if start < 0 || start >= shortest {
		return nil, failure(ErrIndexOutOfRange, "FromPos %d is out of range: valid positions are %d to %d", *o.fromPos, -shortest,
			shortest-1).because("INDEX_OUT_OF_RANGE", "axis", "from_pos", "size", strconv.Itoa(shortest), "got", strconv.Itoa(*o.fromPos))
	}
	first := uint32(start)
	request.FromPos = &first
	for row := range lengths {
		lengths[row] -= start
	}
	return lengths, nil
}

// comparisonsOf refuses more or fewer rows or positions than were compared, and numbers that none can be.
func comparisonsOf(answer *pb.CompareRunsResponse, lengths []int) ([]RowComparison, error) {
	if len(answer.Rows) != len(lengths) {
		return nil, failure(ErrInternal, "the server compared %d rows of %d", len(answer.Rows), len(lengths))
	}
	made := make([]RowComparison, len(lengths))
	for i, row := range answer.Rows {
		if len(row.GetKlByPos()) != lengths[i] {
			return nil, failure(ErrInternal, "the server compared %d positions of row %d, not %d", len(row.GetKlByPos()), i, lengths[i])
		}
		least := math.Min(row.GetKl(), math.Min(float64(row.GetTopId()), float64(row.GetOtherTopId())))
		for _, kl := range row.GetKlByPos() {
			least = math.Min(least, kl)
		}
		if least < 0 {
			return nil, failure(ErrInternal, "the server sent a divergence below 0, or a negative token id")
		}
		made[i] = RowComparison{row.GetKl(), int64(row.GetTopId()), legible(row.GetTopString(), mostTokenText),
			int64(row.GetOtherTopId()), legible(row.GetOtherTopString(), mostTokenText), append([]float64{}, row.GetKlByPos()...)}
	}
	return made, nil
}
