package main

import transparentllm "transparentllm.dev/go"

// cellFields are those of a cell of a sweep.
type cellFields struct {
	Layer     *int  `json:"layer"`
	Head      *int  `json:"head"`
	Neurons   []int `json:"neurons"`
	Positions []int `json:"positions"`
	SourceRow *int  `json:"source_row"`
}

func (c called) sweep() (fields, error) {
	templates, err := c.editsOf(c.asked.Templates)
	if err != nil {
		return nil, err
	}
	before, err := c.editsOf(c.asked.Before)
	if err != nil {
		return nil, err
	}
	var cells []transparentllm.SweepCell
	for _, each := range c.asked.Cells {
		cells = append(cells, transparentllm.SweepCell(each))
	}
	var metrics []transparentllm.Metric
	for i := range c.asked.Metrics {
		metric, err := c.metric(&c.asked.Metrics[i])
		if err != nil {
			return nil, err
		}
		metrics = append(metrics, metric)
	}
	options := transparentllm.SweepOptions{Rows: c.asked.Rows, Before: before}
	got, err := c.llm.Sweep(c.ctx, templates, cells, metrics, options)
	if err != nil {
		return nil, err
	}
	made, err := encodedParts(map[string]*tensor{"baselines": got.Baselines, "values": got.Values})
	return fields{"parts": made}, err
}
