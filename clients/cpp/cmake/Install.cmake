# What find_package(transparent_llm CONFIG) finds.

include(CMakePackageConfigHelpers)

set(TRANSPARENT_LLM_CONFIG_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/transparent_llm")

install(TARGETS transparent_llm EXPORT transparent_llm-targets)
install(DIRECTORY include/transparent_llm DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT transparent_llm-targets NAMESPACE transparent_llm:: DESTINATION "${TRANSPARENT_LLM_CONFIG_DIR}")

get_target_property(TRANSPARENT_LLM_TYPE transparent_llm TYPE)
configure_package_config_file(cmake/transparent_llm-config.cmake.in
  "${CMAKE_CURRENT_BINARY_DIR}/transparent_llm-config.cmake"
  INSTALL_DESTINATION "${TRANSPARENT_LLM_CONFIG_DIR}")
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/transparent_llm-config-version.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES
  "${CMAKE_CURRENT_BINARY_DIR}/transparent_llm-config.cmake"
  "${CMAKE_CURRENT_BINARY_DIR}/transparent_llm-config-version.cmake"
  DESTINATION "${TRANSPARENT_LLM_CONFIG_DIR}")
