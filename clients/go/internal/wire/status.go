package wire

import (
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/runtime/protoimpl"
)

// StatusError is the error of a call that ended with these three: the number of its status, its text, and the bytes of
// `grpc-status-details-bin`, if any. Details that cannot be read are left out.
func StatusError(code codes.Code, message string, details []byte) error {
	rich := &spb.Status{}
	// Generated code of 2020, which Debian has, knows only the first API of messages; this takes both.
	if len(details) == 0 || proto.Unmarshal(details, protoimpl.X.ProtoMessageV2Of(rich)) != nil {
		return status.Error(code, message)
	}
	return status.FromProto(&spb.Status{Code: int32(code), Message: rich.Message, Details: rich.Details}).Err()
}
