package transparentllm

import pb "transparentllm.dev/go/transparent_llm/v1"

// Selection says which elements of a site an edit changes: positions of each row, and, unless OfRows says which, those of
// all rows of the batch. Padding is never changed. The zero value selects nothing and is refused.
type Selection struct {
	word      string // "all" or "last"
	positions []int
	rows      []int
	ofRows    bool
}

// AllPositions selects all tokens.
func AllPositions() Selection { return Selection{word: "all"} }

// LastPosition selects the last token of each row.
func LastPosition() Selection { return Selection{word: "last"} }

// Positions selects these; negative ones count from the last token of their row.
func Positions(positions ...int) Selection {
	return Selection{word: "chosen", positions: append([]int{}, positions...)}
}

// OfRows is the same of these rows only; negative ones count from the end of the batch.
func (s Selection) OfRows(rows ...int) Selection {
	s.rows, s.ofRows = append([]int{}, rows...), true
	return s
}

// into writes it into an edit.
func (s Selection) into(edit *pb.Intervention, site Site) error {
	switch s.word {
	case "all":
		edit.Positions = &pb.Intervention_AllPositions{AllPositions: true}
	case "last":
		edit.Positions = &pb.Intervention_LastPosition{LastPosition: true}
	case "chosen":
		positions, err := chosen("positions", s.positions)
		if err != nil {
			return err
		}
		edit.Positions = &pb.Intervention_ChosenPositions{ChosenPositions: positions}
	default:
		return failure(ErrInvalidRequest, "an edit of %v says nothing of positions: nothing is edited everywhere unasked", site)
	}
	if !s.ofRows {
		edit.Rows = &pb.Intervention_AllRows{AllRows: true}
		return nil
	}
	rows, err := chosen("rows", s.rows)
	edit.Rows = &pb.Intervention_ChosenRows{ChosenRows: rows}
	return err
}

// chosen are indices of which there is one at least, and none twice.
func chosen(name string, numbers []int) (*pb.Indices, error) {
	if len(numbers) == 0 {
		return nil, failure(ErrInvalidRequest, "%s is empty, so nothing would be changed", name)
	}
	seen := make(map[int]bool, len(numbers))
	for _, number := range numbers {
		if seen[number] {
			return nil, failure(ErrInvalidRequest, "%s names %d twice", name, number)
		}
		seen[number] = true
	}
	found, err := indices(name, numbers)
	return &pb.Indices{Indices: found}, err
}
