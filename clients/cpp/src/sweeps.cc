// The method of Client that sweeps.

#include "transparent_llm/sweeps.h"

#include "client_impl.h"
#include "sweeping.h"

namespace transparent_llm {

using internal::CallTerms;
using internal::CurrentRun;

Swept Client::sweep(const std::vector<Edit>& templates, const std::vector<SweepCell>& cells,
                    const std::vector<Metric>& metrics, const SweepOptions& options) {
  internal::Sweep sweep(templates, cells, metrics, options);
  const ReadOptions of_call{.timeout = options.timeout, .stop_token = options.stop_token};
  impl().of_run(of_call, [&](const CurrentRun& run, const CallTerms& terms) {
    impl().require_offered("sweep", "sweeps", terms);
    internal::Connection& connection = impl().connection();
    sweep.begin(run, impl().shared().descriptions.limits(connection, terms), connection.max_bytes());
    const internal::MessageCall call{
        .name = "sweep",
        .request = [&] { return sweep.request(run.run_id); },
        .take = [&](grpc::ByteBuffer& message) { sweep.take(message); },
        .finish = [&] { sweep.require_all(); }};
    impl().bringing(sweep.sources(), terms, [&] {
      while (sweep.is_left()) {
        sweep.choose();
        internal::receive_messages(connection, call, terms);
      }
    });
  });
  return std::move(sweep).swept();
}

}  // namespace transparent_llm
