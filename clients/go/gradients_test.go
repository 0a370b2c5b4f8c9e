package transparentllm_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

type (
	siteGradient    = transparentllm.SiteGradient
	gradientOptions = transparentllm.GradientOptions
)

var by, metricOf = transparentllm.GradientBy, transparentllm.LogitOf

// near tells whether two numbers are one, but for rounding.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-3*(1+math.Abs(b)) }

func TestGradientsOfAProjectionAreItsDirection(t *testing.T) {
	llm, _ := two(t)
	site := transparentllm.AtResidualOut(-1)
	direction := make([]float32, must(llm.ModelInfo(background))(t).DModel)
	direction[1], direction[2] = 3, 4
	projection := transparentllm.Projection(site, transparentllm.Literal(direction)).At(-2)
	got := must(llm.Gradients(background, projection, []siteGradient{by(site), transparentllm.GradientTimesActivation(site),
		transparentllm.GradientNorm(site)}, gradientOptions{}))(t)
	for row, last := range must(llm.Last())(t) {
		metric := must(got.Metric.At(row))(t)
		for pos := 0; pos <= last; pos++ {
			wanted := [3]float64{}
			if pos == last-1 {
				wanted = [3]float64{0.6, metric, 1}
			}
			values := [3]float64{must(got.Sites[0].At(row, pos, 1))(t), must(got.Sites[1].At(row, pos))(t), must(got.Sites[2].At(row, pos))(t)}
			for i := range values {
				if !near(values[i], wanted[i]) {
					t.Errorf("row %d, position %d: %v, not %v", row, pos, values, wanted)
					break
				}
			}
		}
	}
}

func TestGradientsOfEveryMetricAndSite(t *testing.T) {
	llm, other := two(t)
	info := must(llm.ModelInfo(background))(t)
	logits, last := must(llm.Logits(background))(t), must(llm.Last())(t)
	metrics := map[string]transparentllm.Metric{
		"logit": metricOf(5), "logprob": transparentllm.LogprobOf(5, 6).Minus(7), "prob": transparentllm.ProbOf(5).At(1),
		"loss": transparentllm.Loss(), "kl": transparentllm.KL(nil), "kl of another": transparentllm.KL(other),
		"entropy":    transparentllm.Entropy().At(0),
		"projection": transparentllm.Projection(at(1), transparentllm.ValueOf(at(1), other, 0, 0)),
	}
	for name, metric := range metrics {
		got, err := llm.Gradients(background, metric, []siteGradient{by(at(0))}, gradientOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := fmt.Sprintf("F64 [%d] [batch]", len(last)); shapeAndDims(got.Metric) != want {
			t.Errorf("%s is %s", name, shapeAndDims(got.Metric))
		}
		if name == "logit" && !near(must(got.Metric.At(0))(t), must(logits.At(0, last[0], 5))(t)) {
			t.Errorf("the metric is %v", must(got.Metric.Float64s())(t))
		}
	}
	batch, pos, heads, width := len(last), logits.Shape()[1], int(info.NHeads), int(info.DModel)
	for want, each := range map[string]siteGradient{
		fmt.Sprintf("[%d %d %d] [batch pos d_model]", batch, pos, width):                     by(transparentllm.AtAttnOut(0)),
		fmt.Sprintf("[%d %d %d %d] [batch pos head d_head]", batch, pos, heads, width/heads): by(transparentllm.AtAllHeads(1)),
		fmt.Sprintf("[%d %d %d] [batch pos d_head]", batch, pos, width/heads):                by(transparentllm.AtHead(1, 2)),
		fmt.Sprintf("[%d %d %d] [batch pos head]", batch, pos, heads):                        transparentllm.GradientNorm(transparentllm.AtAllQueries(1)),
		fmt.Sprintf("[%d %d %d] [batch pos kv_head]", batch, pos, heads):                     transparentllm.GradientTimesActivation(transparentllm.AtAllKeys(1)),
		fmt.Sprintf("[%d %d] [batch pos]", batch, pos):                                       transparentllm.GradientNorm(transparentllm.AtValue(1, 0)),
		fmt.Sprintf("[%d %d %d %d] [batch head query_pos key_pos]", batch, heads, pos, pos):  transparentllm.GradientTimesActivation(transparentllm.AtAllPatterns(0)),
		fmt.Sprintf("[%d %d %d] [batch query_pos key_pos]", batch, pos, pos):                 by(transparentllm.AtPattern(0, 1)),
		fmt.Sprintf("[%d %d 2] [batch pos neuron]", batch, pos):                              by(transparentllm.AtNeurons(0, 3, 5)),
		fmt.Sprintf("[%d %d 512] [batch pos neuron]", batch, pos):                            transparentllm.GradientNorm(transparentllm.AtAllNeurons(-1)),
		fmt.Sprintf("[%d %d 10] [batch pos neuron]", batch, pos):                             by(transparentllm.AtNeurons(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)),
	} {
		frozen := []transparentllm.FrozenPart{transparentllm.FrozenNormScales, transparentllm.FrozenNeurons}
		got, err := llm.Gradients(background, metricOf(5), []siteGradient{each}, gradientOptions{Frozen: frozen})
		if err != nil || shapeAndDims(got.Sites[0]) != "F32 "+want {
			t.Errorf("not %s: %v, %v", want, got, err)
		}
	}
	short := must(llm.Gradients(background, metricOf(5), []siteGradient{by(at(0))}, gradientOptions{Rows: []int{-1}}))(t)
	if want := fmt.Sprintf("F32 [1 %d %d] [batch pos d_model]", last[len(last)-1]+1, width); shapeAndDims(short.Sites[0]) != want {
		t.Errorf("of one row: %s, not %s", shapeAndDims(short.Sites[0]), want)
	}
}

func TestAttributionPatchingWithARunThatIsLost(t *testing.T) {
	llm := dial(t, address(t, "float32"))
	other := llm.Copy()
	for each, tokens := range map[*client][][]int64{llm: {{1, 2, 3}}, other: {{1, 9, 3}, {1, 8, 3}}} {
		if err := each.RunTokens(background, tokens); err != nil {
			t.Fatal(err)
		}
	}
	site := at(1)
	sites := []siteGradient{transparentllm.GradientTimesDifference(site, other, 1), by(site)}
	got := must(llm.Gradients(background, metricOf(5), sites, gradientOptions{}))(t)
	here, there := must(llm.ResidualIn(background, 1))(t), must(other.ResidualIn(background, 1))(t)
	for pos := 0; pos < 3; pos++ {
		sum := 0.0
		for i := 0; i < here.Shape()[2]; i++ {
			sum += (must(there.At(1, pos, i))(t) - must(here.At(0, pos, i))(t)) * must(got.Sites[1].At(0, pos, i))(t)
		}
		if value := must(got.Sites[0].At(0, pos))(t); !near(value, sum) {
			t.Errorf("position %d: %v, not %v", pos, value, sum)
		}
	}
	for _, each := range []*client{llm, other} {
		if err := each.Release(background); err != nil {
			t.Fatal(err)
		}
	}
	again := must(llm.Gradients(background, metricOf(5), sites, gradientOptions{}))(t)
	if string(again.Sites[0].Bytes()) != string(got.Sites[0].Bytes()) {
		t.Error("the same gradients are others")
	}
}

func TestGradientsGoThroughWhatEditsDo(t *testing.T) {
	llm, other := two(t)
	site := transparentllm.AtResidualOut(-1)
	direction := make([]float32, must(llm.ModelInfo(background))(t).DModel)
	direction[1] = 1
	projection := transparentllm.Projection(site, transparentllm.Literal(direction)).At(1)
	one := []siteGradient{by(transparentllm.AtFfnOut(-1)), by(transparentllm.AtResidualIn(0))}
	whole := must(llm.Gradients(background, projection, one, gradientOptions{}))(t)
	edits := []edit{transparentllm.Scale(site, 3, transparentllm.Positions(1)), transparentllm.Patch(transparentllm.AtResidualIn(0), other,
		transparentllm.Positions(1).OfRows(0))}
	got := must(llm.Gradients(background, projection, one, gradientOptions{Edits: edits}))(t)
	for row := 0; row < 2; row++ {
		if value, want := must(got.Sites[0].At(row, 1, 1))(t), 3*must(whole.Sites[0].At(row, 1, 1))(t); !near(value, want) {
			t.Errorf("row %d: %v, not %v", row, value, want)
		}
	}
	if plain, changed := must(whole.Metric.At(0))(t), must(got.Metric.At(0))(t); near(plain, changed) {
		t.Errorf("what was patched left %v", plain)
	}
}

func TestIntegratedGradientsSumToTheDifference(t *testing.T) {
	llm := dial(t, address(t, "float32"))
	other := llm.Copy()
	for each, tokens := range map[*client][][]int64{llm: {{1, 2, 3}}, other: {{4, 5, 6}}} {
		if err := each.RunTokens(background, tokens); err != nil {
			t.Fatal(err)
		}
	}
	for name, path := range map[string]transparentllm.GradientPath{
		"zero": transparentllm.FromZero(8), "a token": transparentllm.FromToken(7, 8), "a run": transparentllm.FromRun(other, 8),
		"heads": transparentllm.FromRun(other, 8).At(transparentllm.AtAllHeads(2)), "a branch": transparentllm.FromZero(8).At(transparentllm.AtFfnOut(3)),
	} {
		got, err := llm.IntegratedGradients(background, metricOf(5), path, gradientOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sum := 0.0
		for _, each := range must(got.Values.Float64s())(t) {
			sum += each
		}
		want := must(got.Metric.At(0))(t) - must(got.BaselineMetric.At(0))(t) + must(got.Delta.At(0))(t)
		if !near(sum, want) {
			t.Errorf("%s: %v, not %v", name, sum, want)
		}
	}
}

func TestGradientsThatMakeNoSense(t *testing.T) {
	llm := ran(t)
	one := []siteGradient{by(at(0))}
	invalid, large := transparentllm.ErrInvalidRequest, transparentllm.ErrTooLarge
	of := func(metric transparentllm.Metric) error {
		return second(llm.Gradients(background, metric, one, gradientOptions{}))
	}
	along := func(path transparentllm.GradientPath) error {
		return second(llm.IntegratedGradients(background, metricOf(5), path, gradientOptions{}))
	}
	frozen := func(parts ...transparentllm.FrozenPart) error {
		return second(llm.Gradients(background, metricOf(5), one, gradientOptions{Frozen: parts}))
	}
	sites := func(sites ...siteGradient) error {
		return second(llm.Gradients(background, metricOf(5), sites, gradientOptions{}))
	}
	var differences []siteGradient
	for i := 0; i < 17; i++ {
		differences = append(differences, transparentllm.GradientTimesDifference(at(0), llm.Copy()))
	}
	for name, c := range map[string]struct {
		err   error
		class *transparentllm.Class
	}{
		"no metric":           {of(transparentllm.Metric{}), invalid},
		"no token":            {of(metricOf()), invalid},
		"a huge token":        {of(metricOf(1 << 40)), invalid},
		"many tokens":         {of(metricOf(make([]int, 5000)...)), large},
		"a loss less":         {of(transparentllm.Loss().Minus(5)), invalid},
		"a loss somewhere":    {of(transparentllm.Loss().At(0)), invalid},
		"a projection of one": {of(transparentllm.Projection(transparentllm.AtHead(0, 0), wave(t, llm))), invalid},
		"no direction":        {of(transparentllm.Projection(at(0), transparentllm.Vector{})), invalid},
		"no such position":    {of(metricOf(5).At(99)), transparentllm.ErrIndexOutOfRange},
		"no path":             {along(transparentllm.GradientPath{}), invalid},
		"no steps":            {along(transparentllm.FromZero(0)), invalid},
		"many steps":          {along(transparentllm.FromZero(1001)), invalid},
		"a path nowhere":      {along(transparentllm.FromZero(5).At(transparentllm.Site{})), invalid},
		"a path at neurons":   {along(transparentllm.FromZero(5).At(transparentllm.AtAllNeurons(0))), invalid},
		"many edits":          {second(llm.Gradients(background, metricOf(5), one, gradientOptions{Edits: make([]edit, 513)})), large},
		"an empty edit":       {second(llm.Gradients(background, metricOf(5), one, gradientOptions{Edits: make([]edit, 1)})), invalid},
		"a path from nobody":  {along(transparentllm.FromRun(nil, 5)), invalid},
		"a part twice":        {frozen(transparentllm.FrozenPatterns, transparentllm.FrozenPatterns), invalid},
		"no part":             {frozen(0), invalid},
		"an unknown part":     {frozen(9), invalid},
		"no sites":            {sites(), invalid},
		"an empty site":       {sites(siteGradient{}), invalid},
		"a site of nothing":   {sites(by(transparentllm.Site{})), invalid},
		"many sites":          {sites(make([]siteGradient, 4097)...), large},
		"many other runs":     {sites(differences...), large},
		"a difference to nil": {sites(transparentllm.GradientTimesDifference(at(0), nil)), invalid},
		"another client":      {sites(transparentllm.GradientTimesDifference(at(0), dial(t, address(t, "float32")))), transparentllm.ErrNotRun},
		"no such layer":       {sites(by(at(99))), transparentllm.ErrIndexOutOfRange},
	} {
		if !errors.Is(c.err, c.class) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func TestGradientsAreWhatWasAskedFor(t *testing.T) {
	model := &pb.ModelDescription{Digest: digestOf("model"), Info: &pb.ModelInfo{DModel: 4, NHeads: 2}}
	info := &pb.ServerInfoResponse{Models: []*pb.ModelDescription{model}, Features: []string{"gradients"}}
	ask := func(answers ...proto.Message) error {
		llm := twoRows(t, liar{"ServerInfo": {info}, "Gradients": answers})
		return second(llm.Gradients(background, metricOf(5), []siteGradient{by(at(0)),
			transparentllm.GradientNorm(transparentllm.AtAllHeads(1))}, gradientOptions{}))
	}
	f64, f32 := pb.Dtype_DTYPE_F64, pb.Dtype_DTYPE_F32
	metric := message("metric", f64, []uint64{2}, "batch")
	stream := message("residual_in(0)", f32, []uint64{2, 3, 4}, "batch", "pos", "d_model")
	heads := message("head(1)", f32, []uint64{2, 3, 2}, "batch", "pos", "head")
	if err := ask(metric, stream, heads); err != nil {
		t.Fatal(err)
	}
	for name, answers := range map[string][]proto.Message{
		"nothing":         {},
		"no site":         {metric},
		"one site":        {metric, stream},
		"no metric":       {stream, heads},
		"another order":   {metric, heads, stream},
		"a site twice":    {metric, stream, stream},
		"one more":        {metric, stream, heads, heads},
		"a single metric": {message("metric", f32, []uint64{2}, "batch"), stream, heads},
		"more rows":       {message("metric", f64, []uint64{3}, "batch"), stream, heads},
		"more positions":  {metric, message("residual_in(0)", f32, []uint64{2, 4, 4}, "batch", "pos", "d_model"), heads},
		"another width":   {metric, message("residual_in(0)", f32, []uint64{2, 3, 5}, "batch", "pos", "d_model"), heads},
		"other axes":      {metric, message("residual_in(0)", f32, []uint64{2, 3, 4}, "batch", "pos", "neuron"), heads},
		"an axis more":    {metric, stream, message("head(1)", f32, []uint64{2, 3, 2, 2}, "batch", "pos", "head", "d_head")},
		"another site":    {metric, message("residual_in(1)", f32, []uint64{2, 3, 4}, "batch", "pos", "d_model"), heads},
	} {
		if err := ask(answers...); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	llm := twoRows(t, liar{"ServerInfo": {&pb.ServerInfoResponse{}}})
	if err := second(llm.Gradients(background, metricOf(5), []siteGradient{by(at(0))}, gradientOptions{})); !errors.Is(err, transparentllm.ErrNotSupported) {
		t.Errorf("an old server: %v", err)
	}
}
