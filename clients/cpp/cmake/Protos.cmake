# Messages and stubs, made at build time. They are the library's own business: no public header includes them.

set(TRANSPARENT_LLM_PROTOS
  transparent_llm/v1/analysis
  transparent_llm/v1/circuits
  transparent_llm/v1/features
  transparent_llm/v1/generation
  transparent_llm/v1/gradients
  transparent_llm/v1/interventions
  transparent_llm/v1/method
  transparent_llm/v1/model
  transparent_llm/v1/service
  transparent_llm/v1/sweeps
  transparent_llm/v1/tensor)

# The plugin, as some packages of gRPC bring no target for it.
if(TARGET gRPC::grpc_cpp_plugin)
  set(TRANSPARENT_LLM_GRPC_PLUGIN "$<TARGET_FILE:gRPC::grpc_cpp_plugin>")
else()
  find_program(TRANSPARENT_LLM_GRPC_PLUGIN grpc_cpp_plugin REQUIRED)
endif()

# transparent_llm_generate(<variable> <proto folder> <name without .proto> <output folder> [GRPC])
function(transparent_llm_generate variable folder name output)
  set(outputs "${output}/${name}.pb.cc" "${output}/${name}.pb.h")
  set(arguments --proto_path=${folder} --cpp_out=${output})
  if("GRPC" IN_LIST ARGN)
    list(APPEND outputs "${output}/${name}.grpc.pb.cc" "${output}/${name}.grpc.pb.h")
    list(APPEND arguments --grpc_out=${output} "--plugin=protoc-gen-grpc=${TRANSPARENT_LLM_GRPC_PLUGIN}")
  endif()
  add_custom_command(
    OUTPUT ${outputs}
    COMMAND protobuf::protoc ${arguments} "${folder}/${name}.proto"
    DEPENDS "${folder}/${name}.proto"
    COMMENT "Generating ${name}"
    VERBATIM)
  set(${variable} ${${variable}} ${outputs} PARENT_SCOPE)
endfunction()

# transparent_llm_add_protos(<target> <output folder>)
function(transparent_llm_add_protos target output)
  if(NOT EXISTS "${TRANSPARENT_LLM_PROTO_DIR}/transparent_llm/v1/service.proto")
    message(FATAL_ERROR "No transparent_llm/v1/service.proto in ${TRANSPARENT_LLM_PROTO_DIR}: "
      "set TRANSPARENT_LLM_PROTO_DIR")
  endif()
  file(MAKE_DIRECTORY "${output}")
  set(sources "")
  foreach(name IN LISTS TRANSPARENT_LLM_PROTOS)
    if(name STREQUAL "transparent_llm/v1/service")
      transparent_llm_generate(sources "${TRANSPARENT_LLM_PROTO_DIR}" ${name} "${output}" GRPC)
    else()
      transparent_llm_generate(sources "${TRANSPARENT_LLM_PROTO_DIR}" ${name} "${output}")
    endif()
  endforeach()
  transparent_llm_generate(sources "${PROJECT_SOURCE_DIR}/proto" transparent_llm/client/status "${output}")
  set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS -w)
  target_sources(${target} PRIVATE ${sources})
  target_include_directories(${target} SYSTEM PRIVATE "${output}")
endfunction()
