// Package transparentllm asks a language model that runs in a server for everything inside it: the residual stream,
// attention, neurons, logits.
//
//	llm, err := transparentllm.Dial("127.0.0.1:50051")
//	...
//	defer llm.Close()
//	err = llm.Run(ctx, []string{"My lord, I am"})
//	...
//	residual, err := llm.ResidualOut(ctx, 3, transparentllm.Slice("pos", transparentllm.Start(-1)))
//
// A client has one current run; Copy gives another one on the same connection. Values are read by the methods of Client,
// many at once by Fetch, and as a stream by Open; Plan tells what they would take. Generate goes on with a text and makes what came
// the current run. Edits change a run, Sweep changes it at many places, Gradients differentiates it, and HeadWeights and its kin
// read weights without one.
//
// Layers, heads, neurons, positions and rows of the batch count from 0. Rows are padded on the right; values at padded
// positions mean nothing. Floating values come in the dtype that the model was loaded with, or in that of WireDtype.
//
// Every error is an *Error. Cancelling a context ends the call at once, tells the server, and leaves the client usable.
// A connection that is lost is made again and the call goes on where it was, within the time of the call; a run that
// the server has forgotten is run again.
package transparentllm
