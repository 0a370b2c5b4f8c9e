package transparentllm

import (
	"context"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// mostSentences is how many a data set has.
const mostSentences = 1000

// Dataset gives the sentences of a data set that the server's operator offers; ServerInfo names them.
//
// Errors: ErrInvalidRequest if there is none of this name; ErrNotSupported of an older server.
func (c *Client) Dataset(ctx context.Context, name string) ([]string, error) {
	if err := c.require(ctx, "datasets"); err != nil {
		return nil, err
	}
	answer := &pb.DatasetResponse{}
	if err := c.calls.unary(ctx, "Dataset", &pb.DatasetRequest{Name: name}, answer, ""); err != nil {
		return nil, err
	}
	empty := 0
	for _, sentence := range answer.Sentences {
		if sentence == "" {
			empty++
		}
	}
	if count := len(answer.Sentences); count == 0 || count > mostSentences || empty > 0 {
		return nil, failure(ErrInternal, "%s sent a data set of %d sentences, %d of them empty; it has 1 to %d, and none is",
			c.calls.target, count, empty, mostSentences)
	}
	return answer.Sentences, nil
}
