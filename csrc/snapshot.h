#pragma once

#include <pybind11/pybind11.h>

namespace wgan_fast {

// Add the class Snapshot to the module.
void bind_snapshot(pybind11::module_& m);

}  // namespace wgan_fast
