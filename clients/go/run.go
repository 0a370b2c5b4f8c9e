package transparentllm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"strconv"
	"sync/atomic"
	"unicode/utf8"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// mostReruns of one read. Behind a proxy a run can fall to another server each time that one comes or goes; a server that
// forgets it each time at once has too little room.
const mostReruns = 3

// run is what the client knows of one; but for its holders it never changes.
type run struct {
	request *pb.RunRequest
	key     string
	id      string
	digest  string
	tokens  *Tensor
	mask    *Tensor // nil where the model does not distinguish padding from tokens
	effects []EditEffect
	sources []*run       // that its edits take from
	holders atomic.Int32 // clients whose current run it is
}

// length is the number of tokens of a row, which padding follows.
func (r *run) length(row int) int {
	if r.mask == nil {
		return r.tokens.shape[1]
	}
	return lengthOf(r.mask, row)
}

// RunOption is one of what Run and RunTokens can be told.
type RunOption func(*runOptions)

type runOptions struct{ edits []Edit }

// Edits changes the run on its way: in the order in which the model comes to their sites; at one site in the order of the
// list, each of what the one before left. Every value of the run is then one of the edited run. Given twice, both are made.
func Edits(edits ...Edit) RunOption {
	held := append([]Edit(nil), edits...)
	return func(o *runOptions) { o.edits = append(o.edits, held...) }
}

func sentencesRequest(model string, sentences []string) (*pb.RunRequest, error) {
	for i, sentence := range sentences {
		if !utf8.ValidString(sentence) {
			return nil, failure(ErrInvalidRequest, "sentence %d is not valid UTF-8", i).because("INVALID_REQUEST",
				"sentence", strconv.Itoa(i))
		}
	}
	held := append([]string(nil), sentences...)
	return &pb.RunRequest{Model: model, Input: &pb.RunRequest_Sentences{Sentences: &pb.SentenceBatch{Sentences: held}}}, nil
}

func tokensRequest(model string, rows [][]int64) (*pb.RunRequest, error) {
	batch := &pb.TokenBatch{}
	for _, row := range rows {
		ids, err := tokenIDs(row)
		if err != nil {
			return nil, err
		}
		batch.Sequences = append(batch.Sequences, &pb.TokenSequence{TokenIds: ids})
	}
	return &pb.RunRequest{Model: model, Input: &pb.RunRequest_Tokens{Tokens: batch}}, nil
}

// tokenIDs refuses what no vocabulary has, so that it need not travel.
func tokenIDs(tokens []int64) ([]int32, error) {
	ids := make([]int32, len(tokens))
	for i, token := range tokens {
		if token < 0 || token > math.MaxInt32 {
			return nil, failure(ErrInvalidRequest, "token %d is not in the vocabulary: ids begin at 0 and no vocabulary is "+
				"that large", token).because("UNKNOWN_TOKEN", "token", strconv.FormatInt(token, 10))
		}
		ids[i] = int32(token)
	}
	return ids, nil
}

// runKey is the routing key, known before the first call: a hash of model and input, the same in every language.
// docs/PROTOCOL.md has its definition.
func runKey(request *pb.RunRequest) string {
	sum := sha256.New()
	addPart(sum, []byte(request.Model))
	if tokens := request.GetTokens(); tokens != nil {
		addPart(sum, []byte("tokens"))
		for _, sequence := range tokens.Sequences {
			addPart(sum, bigEndian(sequence.TokenIds))
		}
	} else {
		addPart(sum, []byte("sentences"))
		for _, sentence := range request.GetSentences().GetSentences() {
			addPart(sum, []byte(sentence))
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// addPart adds a part after its length, so that two parts cannot run into each other.
func addPart(sum hash.Hash, part []byte) {
	sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part)))) // a hash.Hash never fails
	sum.Write(part)
}

func bigEndian(ids []int32) []byte {
	data := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		data = binary.BigEndian.AppendUint32(data, uint32(id))
	}
	return data
}

// mostRunID is more bytes than the name of any run has.
const mostRunID = 256

// requireRunOf refuses an answer to Run that contradicts itself or what was run.
func requireRunOf(request *pb.RunRequest, answer *pb.RunResponse) error {
	count := uint64(answer.BatchSize) * uint64(answer.NPos)
	if count == 0 || uint64(len(answer.TokenIds)) != count || (len(answer.Mask) != 0 && uint64(len(answer.Mask)) != count) {
		return failure(ErrInternal, "the server's answer to Run contradicts itself: %d tokens and %d of the mask for [%d %d]",
			len(answer.TokenIds), len(answer.Mask), answer.BatchSize, answer.NPos)
	}
	rows, longest := sizeOf(request)
	if int(answer.BatchSize) != rows || (longest > 0 && int(answer.NPos) != longest) {
		return failure(ErrInternal, "the server made a run of %d rows of %d positions, not of the %d rows that were sent",
			answer.BatchSize, answer.NPos, rows)
	}
	if len(answer.RunId) == 0 || len(answer.RunId) > mostRunID {
		return failure(ErrInternal, "the server sent a run id of %d bytes", len(answer.RunId))
	}
	for i := 1; i < len(answer.Mask); i++ {
		if answer.Mask[i] && !answer.Mask[i-1] && i%int(answer.NPos) != 0 {
			return failure(ErrInternal, "the server put padding before a token of row %d: it belongs on the right", i/int(answer.NPos))
		}
	}
	if !isDigest(answer.ModelDigest) {
		return failure(ErrInternal, "the server ran a model with the digest %.100q, which is not a SHA-256 in hex",
			answer.ModelDigest)
	}
	return nil
}

// sizeOf is the number of rows that are to be run, and of the tokens of the longest; 0 where these are not known yet.
func sizeOf(request *pb.RunRequest) (rows, longest int) {
	tokens := request.GetTokens()
	if tokens == nil {
		return len(request.GetSentences().GetSentences()), 0
	}
	for _, sequence := range tokens.Sequences {
		if len(sequence.TokenIds) > longest {
			longest = len(sequence.TokenIds)
		}
	}
	return len(tokens.Sequences), longest
}

// answeredRun is the run that the server made.
func answeredRun(request *pb.RunRequest, key string, answer *pb.RunResponse) (*run, error) {
	if err := requireRunOf(request, answer); err != nil {
		return nil, err
	}
	effects, err := effectsOf(answer, len(request.Edits))
	if err != nil {
		return nil, err
	}
	shape := []int{int(answer.BatchSize), int(answer.NPos)}
	count := len(answer.TokenIds)
	made := &run{request: request, key: key, id: answer.RunId, digest: answer.ModelDigest, effects: effects}
	made.tokens = &Tensor{I64, shape, methods["tokens"].dims, make([]byte, 0, 8*count)}
	for _, id := range answer.TokenIds {
		made.tokens.data = binary.LittleEndian.AppendUint64(made.tokens.data, uint64(int64(id)))
	}
	if len(answer.Mask) == 0 {
		return made, nil
	}
	made.mask = &Tensor{BOOL, shape, methods["tokens"].dims, make([]byte, count)}
	for i, isToken := range answer.Mask {
		if isToken {
			made.mask.data[i] = 1
		}
	}
	return made, nil
}

// requireSameModel refuses to go on with the values of another model.
func requireSameModel(was, is, target string) error {
	if was == is {
		return nil
	}
	return failure(ErrNotFound, "%s lost the run and now serves another model under this name; call Run again if that is "+
		"what you want", target).because("MODEL_CHANGED", "was", was, "is", is)
}
