package transparentllm_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

func TestAnOperatorsDatasetIsReadByItsName(t *testing.T) {
	python := os.Getenv("PYTHON")
	if python == "" {
		t.Skip("no server: PYTHON is not set")
	}
	file := filepath.Join(t.TempDir(), "lines.txt")
	if err := os.WriteFile(file, []byte("What say you?\n\n日本語\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	servers.Lock()
	servers.address["dataset"] = start(t, python, "dataset", "--dataset", "lines="+file)
	servers.Unlock()
	llm := dial(t, servers.address["dataset"])
	info := must(llm.ServerInfo(background))(t)
	if len(info.Datasets) != 1 || info.Datasets[0].Name != "lines" || info.Datasets[0].NSentences != 2 {
		t.Errorf("offers %v", info.Datasets)
	}
	if got := must(llm.Dataset(background, "lines"))(t); !reflect.DeepEqual(got, []string{"What say you?", "日本語"}) {
		t.Errorf("has %q", got)
	}
	err := second(llm.Dataset(background, "rhymes"))
	if !errors.Is(err, transparentllm.ErrInvalidRequest) || !strings.Contains(err.Error(), "there are lines") {
		t.Error(err)
	}
}

func TestDatasetsThatNoServerMaySend(t *testing.T) {
	info := &pb.ServerInfoResponse{Features: []string{"datasets"}}
	for _, sentences := range [][]string{{}, {"a", ""}, make([]string, 1001)} {
		llm := dial(t, liar{"ServerInfo": {info}, "Dataset": {&pb.DatasetResponse{Sentences: sentences}}}.serve(t))
		if err := second(llm.Dataset(background, "lines")); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%d sentences: %v", len(sentences), err)
		}
	}
	older := dial(t, liar{"ServerInfo": []proto.Message{&pb.ServerInfoResponse{}}}.serve(t))
	if err := second(older.Dataset(background, "lines")); !errors.Is(err, transparentllm.ErrNotSupported) {
		t.Error(err)
	}
}
