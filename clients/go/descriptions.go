package transparentllm

import (
	"context"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// description of the model with this digest, asked for until it is known; nil if it is not served.
func (s *shared) description(ctx context.Context, digest string) (*pb.ModelDescription, error) {
	if model := s.described(digest); model != nil {
		return model, nil
	}
	answer := &pb.ServerInfoResponse{}
	if err := s.calls.unary(ctx, "ServerInfo", &pb.ServerInfoRequest{}, answer, ""); err != nil {
		return nil, err
	}
	if err := requireDigests(answer, s.calls.target); err != nil {
		return nil, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.learn(answer)
	if len(s.models) >= mostModels {
		s.models = map[string]*pb.ModelDescription{}
	}
	for _, model := range answer.Models {
		if model.Digest == digest && s.models[digest] == nil { // calls under way rely on what they were told
			s.models[digest] = model
		}
	}
	return s.models[digest], nil
}

// described is what is known of a model already; else nil.
func (s *shared) described(digest string) *pb.ModelDescription {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.models[digest]
}

// learn notes what the server can do. The caller holds the mutex.
func (s *shared) learn(answer *pb.ServerInfoResponse) {
	s.features, s.limits = map[string]bool{}, answer.Limits
	for _, feature := range answer.Features {
		s.features[feature] = true
	}
}

// offers tells whether the server can do this; it is asked if that was not done yet.
func (s *shared) offers(ctx context.Context, feature string) (bool, error) {
	s.mutex.Lock()
	known := s.features != nil
	s.mutex.Unlock()
	if !known {
		answer := &pb.ServerInfoResponse{}
		if err := s.calls.unary(ctx, "ServerInfo", &pb.ServerInfoRequest{}, answer, ""); err != nil {
			return false, err
		}
		s.mutex.Lock()
		s.learn(answer)
		s.mutex.Unlock()
	}
	return s.has(feature), nil
}

// has tells whether the server, if it was asked, said that it can do this.
func (s *shared) has(feature string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.features[feature]
}

// requireDigests refuses descriptions whose digests are none. A model that was never loaded has none yet.
func requireDigests(answer *pb.ServerInfoResponse, target string) error {
	for _, model := range answer.Models {
		if model.Digest != "" && !isDigest(model.Digest) {
			return failure(ErrInternal, "%s describes a model with the digest %.100q, which is not a SHA-256 in hex", target,
				model.Digest)
		}
	}
	return nil
}
