#pragma once

#include <pybind11/pybind11.h>

namespace wgan_fast {

// Add the class Adam to the module.
void bind_adam(pybind11::module_& m);

}  // namespace wgan_fast
